"""Runs the command line: ``python -m concil`` and the ``concil`` program."""

from __future__ import annotations

import sys

FAILED = 1
INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit code.

    A Ctrl-C may arrive, or memory may run out, while modules are still imported; a command that
    runs handles both itself.
    """
    try:
        from concil.cli.main import main as run  # noqa: PLC0415  # imports take a while

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("concil: interrupted\n")
        return INTERRUPTED
    except (MemoryError, ImportError) as error:
        # The dynamic linker reports a lack of memory as an ImportError.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        sys.stderr.write("concil: out of memory; raise the memory limit (ulimit -v)\n")
        return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
