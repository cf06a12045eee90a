"""A parallel transfer engine for OCI and Docker registries."""
