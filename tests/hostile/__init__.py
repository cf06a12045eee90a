"""A registry that means harm, and what it gets: see docs/security.md."""
