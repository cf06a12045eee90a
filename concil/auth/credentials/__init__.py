"""Stored credentials: auth files, credential helpers and logins."""
