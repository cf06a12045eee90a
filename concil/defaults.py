"""Constants of the settings that the command line shows before it imports the settings."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * 1024
MIN_BANDWIDTH = 1 * KIB  # bytes per second; below it connections run into timeouts
MIN_REQUEST_RATE = 1 / 60  # requests per second
WORKERS = 8  # threads that transfer blobs
MAX_ATTEMPTS = 6  # consecutive, without progress
SPOOL_SIZE = 8 * 1024 * MIB  # bytes
CACHE_SIZE = 50 * 1024 * 1024 * 1024  # bytes
