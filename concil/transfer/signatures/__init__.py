"""What a copy needs to know of the verification of signatures."""
