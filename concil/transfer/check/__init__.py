"""Checks whether copies of images are complete and whole, and repairs them."""
