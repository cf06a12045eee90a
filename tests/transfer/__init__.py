"""Transfers between stores in memory, and files that are filled."""
