"""Reports of a mirror: JSON, and an HTML page of the timeline."""
