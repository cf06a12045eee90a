"""Tests of checks and repairs, on stores in memory."""
