"""Mirrors: many images in one schedule."""
