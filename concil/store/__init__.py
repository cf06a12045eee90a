"""Places that content is read from and written to."""
