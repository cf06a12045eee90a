"""Real registries, broken networks and generated images for the tests."""
