"""The data model of the OCI specifications; no input or output."""
