"""Repositories of registries as sources and destinations."""
