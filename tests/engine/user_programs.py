"""Programs of users, each in a process of its own, warnings being errors."""

from __future__ import annotations

import os
import subprocess
import sys

PATIENCE = 60  # seconds until a program that hangs is failed
# What every program begins with.
_HEAD = """
import faulthandler, gc, hashlib, multiprocessing, os, signal, sys, threading, time
from pathlib import Path
from concil import Digest, DockerHub, Engine, TransferConfig
from concil.transfer.journal import Journal
faulthandler.dump_traceback_later(50, exit=True)
URL, HERE, WORKERS = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
CONFIG = TransferConfig(workers=WORKERS, chunk_size=1 << 20)

def in_child(call, *, leave=os._exit):
    # Fork, call it in the child, and return the child's exit code.
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            call()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            if leave is os._exit:
                os._exit(code)
        sys.exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def file_of(name, content):
    path = HERE / name
    path.write_bytes(content)
    return path
"""


def run_program(text: str, *arguments: object) -> str:
    """Run a program to its end; return what it printed. It must say nothing else."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _HEAD + text, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout
