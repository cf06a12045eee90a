"""Copies one image to several destinations, reading each of its blobs once."""
