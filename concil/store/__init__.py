"""Stores: registries, layouts and archives as sources and destinations."""
