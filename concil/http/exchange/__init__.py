"""Plain exchanges: requests that need nothing of urllib3 but a connection from its pool."""
