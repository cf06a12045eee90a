"""A registry, and a run of the command line that is watched."""

from __future__ import annotations

from tests.cli.conftest import cli, directory, jobs, registry

__all__ = ["cli", "directory", "jobs", "registry"]
