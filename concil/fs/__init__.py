"""Files on local disks: locks, stale temporary files."""
