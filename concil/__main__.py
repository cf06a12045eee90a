"""Runs the command line: ``python -m concil`` and the ``concil`` program."""

from __future__ import annotations

import atexit
import gc
import os
import sys

FAILED = 1
INTERRUPTED = 130


def run_program() -> int:
    """Run the ``concil`` program; return only if the interpreter has to end by itself.

    Nothing is collected while modules are imported, and at the end the process leaves without
    destroying every module and object: together they take a quarter of the time of
    ``concil digest``. ``python -m concil`` does without both, so that profilers work, and warnings
    of what was left open are seen.
    """
    gc.disable()
    code = main()
    if _is_everything_written():
        atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing ends its children
        os._exit(code)
    return code


def _is_everything_written() -> bool:
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # the interpreter reports it
        return False
    return True


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
