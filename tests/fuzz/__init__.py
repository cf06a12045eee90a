"""Fuzzing of everything that reads a stranger's text: `python -m tests.fuzz`."""
