"""Transfers that are killed and run again, with every byte on the wire counted."""
