"""Mirrors on a Dask cluster."""
