"""What a mirror copies: plans, filters and the images they expand to."""
