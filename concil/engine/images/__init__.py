"""What is in a registry: tags, images, their trees, differences and sizes."""
