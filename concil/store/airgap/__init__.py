"""Incremental exports across an air gap."""
