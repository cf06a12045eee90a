"""A mirror that runs as a service for hundreds of runs, while everything around it fails."""
