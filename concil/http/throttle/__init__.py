"""Holds requests back: rates, pauses and quotas per host."""
