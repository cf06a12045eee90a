"""Tests of the embedded registry, over the wire."""
