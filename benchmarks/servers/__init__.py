"""The servers that the compared programs talk to."""
