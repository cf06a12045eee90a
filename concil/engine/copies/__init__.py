"""Copies of one image to several destinations."""
