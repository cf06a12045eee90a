"""A mirror on a Dask cluster: one plan, many machines, one report. Needs the extra `dask`."""
