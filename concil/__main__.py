"""`python -m concil`, and the program `concil`."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code.

    A Ctrl-C may come while it is still being read.
    """
    try:
        from concil.cli import main as run  # noqa: PLC0415  # what is imported takes a while
    except KeyboardInterrupt:
        sys.stderr.write("concil: interrupted\n")
        return INTERRUPTED
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
