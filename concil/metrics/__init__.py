"""Metrics of mirrors: counted from events, requests and outcomes, for Prometheus."""
