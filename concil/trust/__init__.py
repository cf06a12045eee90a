"""Signatures of images: where they are found, and who has made them."""
