"""One HTTP exchange with one host."""
