"""OCI image layouts as sources and destinations."""
