"""The process: forks, limits, cancellation and argument checks."""
