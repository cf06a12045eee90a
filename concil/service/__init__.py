"""A mirror that runs again and again: when it runs, what is retried, and what it reads."""
