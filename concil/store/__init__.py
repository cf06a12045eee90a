"""Places content is read from and written to."""
