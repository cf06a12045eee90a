"""Registries as they really behave, on the embedded one, and what concil makes of them."""
