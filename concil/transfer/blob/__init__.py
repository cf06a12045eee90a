"""Transfers of single blobs."""
