"""Tests of copies to several destinations."""
