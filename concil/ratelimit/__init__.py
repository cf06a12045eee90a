"""Rates: schedules and bandwidth limits."""
