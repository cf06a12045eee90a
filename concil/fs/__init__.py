"""Local files: locks, atomic replacement, partial files."""
