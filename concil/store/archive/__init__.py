"""Image archives as sources and destinations."""
