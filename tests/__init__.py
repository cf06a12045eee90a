"""The tests of concil."""
