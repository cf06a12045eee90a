"""OpenTelemetry traces of copies: a span for each image, blob and request."""
