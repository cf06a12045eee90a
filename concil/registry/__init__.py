"""The client side of a registry: one HTTP exchange at a time."""
