"""A simulation of very large mirrors on a cluster: no bytes, a synthetic clock."""
