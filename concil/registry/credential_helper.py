"""The protocol of credential helpers: programs that keep passwords for docker and podman."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from typing import IO

from concil.errors import AccessDenied, Cancelled, shown
from concil.forking import keep_file_from_children
from concil.limits import THREADS, reached
from concil.registry import go_json
from concil.registry.credentials import TOKEN_USER, Credentials

TIMEOUT = 30.0  # seconds; a keyring may ask its user to unlock it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # nothing that leads to another directory
_OUTPUT_LIMIT = 64 * 1024  # bytes
_STEP = 0.1  # seconds between looks at the cancel event
# Source: docker-credential-helpers, credentials/error.go.
_NOT_FOUND = b"credentials not found in native keychain"


class CredentialHelper:
    """One helper. Any thread may call any method.

    The server goes to its standard input, and so does a secret: arguments can be read by
    every user of the machine.

    Source: docker-credential-helpers, README, "Development".
    """

    def __init__(
        self, name: str, *, cancel: threading.Event | None = None, timeout: float = TIMEOUT
    ) -> None:
        """Use ``docker-credential-<name>``; it need not be installed yet.

        Args:
            cancel: ends a helper that runs.
            timeout: seconds that it may take.
        Raises:
            AccessDenied: no name of a program.
        """
        if not _NAME.fullmatch(name):
            raise AccessDenied(
                f"not the name of a credential helper: {shown(name)}",
                remedy="write X for a program docker-credential-X",
            )
        self.program = f"docker-credential-{name}"
        self._cancel = cancel or threading.Event()
        self._timeout = timeout

    @property
    def is_installed(self) -> bool:
        """Whether the program is on PATH."""
        return shutil.which(self.program) is not None

    def locate(self, server: str) -> str:
        """Return the program's path.

        Args:
            server: for whose sake, for the message.
        Raises:
            AccessDenied: it is not installed.
        """
        path = shutil.which(self.program)
        if path is None:
            raise AccessDenied(
                f"{self.program}, which keeps the credentials for {server}, is not installed",
                remedy="install it, or take it out of docker's config.json and log in again",
            )
        return path

    def get(self, server: str) -> Credentials | None:
        """Return the credentials for a server; None: it has none.

        Raises:
            AccessDenied: the helper is missing, failed, hung, or answered nonsense.
            Cancelled: somebody cancelled.
        """
        code, output = self._run("get", server, server.encode())
        if code != 0:
            if _NOT_FOUND in output:
                return None
            raise self._failed("get", server, f"failed with exit code {code}")
        username, secret = _answered(output)
        if username is None or secret is None:
            raise self._failed("get", server, "answered nothing that can be understood")
        if username == TOKEN_USER:
            return Credentials.token(secret, self.program)
        if not (username or secret):
            return None
        return Credentials(username, secret, place=self.program)

    def store(self, server: str, credentials: Credentials) -> None:
        """Let the helper keep a user and a password, or an identity token. Raises as `get`."""
        token = credentials.identity_token
        entry = {
            "ServerURL": server,
            "Username": credentials.username if token is None else TOKEN_USER,
            "Secret": credentials.password if token is None else token,
        }
        code, _ = self._run("store", server, json.dumps(entry).encode())
        if code != 0:
            raise self._failed("store", server, f"failed with exit code {code}")

    def erase(self, server: str) -> None:
        """Let the helper forget a server; one that it does not know is none. Raises as `get`."""
        code, output = self._run("erase", server, server.encode())
        if code != 0 and _NOT_FOUND not in output:
            raise self._failed("erase", server, f"failed with exit code {code}")

    def _run(self, action: str, server: str, content: bytes) -> tuple[int, bytes]:
        """Return exit code and output."""
        path = self.locate(server)
        try:
            # A session of its own, so that whatever it starts ends with it.
            process = subprocess.Popen(  # noqa: S603 - the name is checked, the user chose it
                [path, action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            limit = reached(error)
            if error.errno == errno.EAGAIN:  # of a fork
                limit = "no further process can be started", THREADS
            if limit is not None:
                cause, remedy = limit
                message = f"{self.program} {action} for {server} cannot be run: {cause}"
                raise AccessDenied(message, remedy=remedy) from error
            cause = f"cannot be run: {error.strerror}"
            raise self._failed(action, server, cause) from error
        with process:
            try:
                return self._talk(process, action, server, content)
            except BaseException:  # raised again: nothing of the helper may stay behind
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def _talk(
        self, process: subprocess.Popen[bytes], action: str, server: str, content: bytes
    ) -> tuple[int, bytes]:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        deadline = time.monotonic() + self._timeout
        output = bytearray()
        with selectors.DefaultSelector() as selector:
            for pipe, event in (
                (process.stdin, selectors.EVENT_WRITE),
                (process.stdout, selectors.EVENT_READ),
            ):
                os.set_blocking(pipe.fileno(), False)
                keep_file_from_children(pipe.fileno())  # else it would wait for their end
                selector.register(pipe, event)
            while selector.get_map():
                ready = selector.select(self._step(deadline, action, server))
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        content = _written(process.stdin, content)
                        if not content:
                            selector.unregister(process.stdin)
                            _close(process.stdin)
                    elif not _taken(process.stdout, output):
                        selector.unregister(process.stdout)
                if len(output) > _OUTPUT_LIMIT:
                    raise self._failed(action, server, f"wrote more than {_OUTPUT_LIMIT} bytes")
                if not ready and process.poll() is not None:
                    break  # what it has left running keeps its output open
        _close(process.stdin)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._step(deadline, action, server))
        return process.returncode, bytes(output)

    def _step(self, deadline: float, action: str, server: str) -> float:
        """Seconds to wait before the next look at what ends the wait."""
        if self._cancel.is_set():
            raise Cancelled(f"{self.program} {action}: cancelled")
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._failed(action, server, f"did not end in {self._timeout:g} s")
        return min(left, _STEP)

    def _failed(self, action: str, server: str, cause: str) -> AccessDenied:
        """Its output is not shown: nobody knows what is in it."""
        return AccessDenied(
            f"{self.program} {action} for {server} {cause}",
            remedy=f"try it: echo {server} | {self.program} {action}"
            if action == "get"
            else f"see the documentation of {self.program}",
        )


def _answered(output: bytes) -> tuple[str | None, str | None]:
    """User and secret of an answer; None and None if it makes no sense.

    Docker reads it by Go's decoder, so some helpers have names in lower case, or print a
    notice behind it.
    """
    try:
        answer = go_json.decode(output)
    except (ValueError, RecursionError):
        return None, None  # the error would quote the answer, and it may be a password
    if not isinstance(answer, dict) or not {"username", "secret"} & answer.keys():
        return None, None
    # What is missing or null is an empty text to Go.
    username, secret = answer.get("username"), answer.get("secret")
    username, secret = ("" if each is None else each for each in (username, secret))
    if not (isinstance(username, str) and isinstance(secret, str)):
        return None, None
    return username, secret


def _written(pipe: IO[bytes], content: bytes) -> bytes:
    """Write what fits; return what is left."""
    try:
        return content[os.write(pipe.fileno(), content) :]
    except BlockingIOError:
        return content
    except OSError:  # it reads no more: its exit code tells whether that matters
        return b""


def _taken(pipe: IO[bytes], output: bytearray) -> bool:
    """Append what is there; return whether more may come."""
    try:
        piece = os.read(pipe.fileno(), _OUTPUT_LIMIT)
    except BlockingIOError:
        return True
    output += piece
    return bool(piece)


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        pipe.close()
