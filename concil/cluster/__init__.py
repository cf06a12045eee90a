"""Mirrors on a Dask cluster. Needs the extra `dask`."""
