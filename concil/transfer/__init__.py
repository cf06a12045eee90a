"""Moving content between stores."""
