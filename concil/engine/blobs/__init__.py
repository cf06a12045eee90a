"""What single blobs are read from and written to besides files of the user."""
