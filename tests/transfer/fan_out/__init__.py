"""Tests of fan-outs."""
