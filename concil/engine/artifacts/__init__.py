"""Files as artifacts in registries: the manifests, titles and archives of oras."""
