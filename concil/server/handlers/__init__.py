"""The endpoints of the embedded registry."""
