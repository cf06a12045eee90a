"""Progress display: bars, plain lines or JSON."""
