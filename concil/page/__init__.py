"""A run's timeline as one HTML page that needs nothing but a browser."""
