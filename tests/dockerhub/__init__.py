"""The documented client, as its users use it."""
