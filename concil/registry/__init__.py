"""Client of the OCI distribution specification."""
