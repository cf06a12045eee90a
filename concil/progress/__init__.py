"""Progress events and their totals."""
