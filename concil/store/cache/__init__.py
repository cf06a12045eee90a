"""Blobs that were read from sources, kept for later runs."""
