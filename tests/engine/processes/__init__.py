"""Mirrors that are split over several processes of this machine."""
