"""The cases: what is moved, by which programs, and how it is known to be right."""
