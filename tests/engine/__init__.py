"""The engine against registries, layouts and broken connections."""
