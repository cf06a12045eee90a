"""`python -m concil`, and the program `concil`."""

from __future__ import annotations

import sys

FAILED = 1
INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code.

    A Ctrl-C may come, or the memory may end, while it is still being read.
    """
    try:
        from concil.cli import main as run  # noqa: PLC0415  # what is imported takes a while
    except KeyboardInterrupt:
        sys.stderr.write("concil: interrupted\n")
        return INTERRUPTED
    except MemoryError:
        sys.stderr.write("concil: out of memory; raise the limit of memory (ulimit -v)\n")
        return FAILED
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
