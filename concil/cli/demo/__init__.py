"""`concil demo`: the command, its images, relay and registries."""
