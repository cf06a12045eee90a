"""The command line: verbs, options, output and error handling."""
