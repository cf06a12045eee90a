"""The registry client against servers that answer as a test decides."""
