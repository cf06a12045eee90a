"""Authentication: challenges, tokens and credentials of one registry."""
