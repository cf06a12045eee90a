"""The file formats of plans."""
