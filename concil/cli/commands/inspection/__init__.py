"""Verbs that look at registries and images without copying anything."""
