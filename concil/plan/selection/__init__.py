"""Which of the tags that match are copied, and in which order."""
