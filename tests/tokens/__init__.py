"""Transfers through the real docker-registry, with tokens of a service that is one."""
