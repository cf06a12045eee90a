"""Runs credential helpers: the docker-credential-* protocol."""

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

from concil.auth.credentials import go_json
from concil.auth.credentials.credentials import TOKEN_USER, Credentials
from concil.errors import AccessDenied, Cancelled, safe_repr
from concil.runtime.forking import detach_file_in_child
from concil.runtime.limits import THREADS_REMEDY, describe_limit

TIMEOUT = 30.0  # seconds; a keyring may prompt the user to unlock it
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # no path separators
_MAX_OUTPUT_SIZE = 64 * 1024  # bytes
_CANCEL_POLL_INTERVAL = 0.1  # seconds between checks of the cancel event
# Source: docker-credential-helpers, credentials/error.go.
_NOT_FOUND_MESSAGE = b"credentials not found in native keychain"


class CredentialHelper:
    """Runs one credential helper. Any thread may call any method.

    Server and secret are passed on standard input, because every user of the machine can read
    the arguments of a process.

    Source: docker-credential-helpers, README, "Development".
    """

    def __init__(
        self, name: str, *, cancel: threading.Event | None = None, timeout: float = TIMEOUT
    ) -> None:
        """Use ``docker-credential-<name>``; it need not be installed yet.

        Args:
            cancel: terminates a running helper when set.
            timeout: maximum run time in seconds.
        Raises:
            AccessDenied: the name is invalid.
        """
        if not _HELPER_NAME.fullmatch(name):
            raise AccessDenied(
                f"not the name of a credential helper: {safe_repr(name)}",
                remedy="write NAME for a program that is called docker-credential-NAME",
            )
        self.program = f"docker-credential-{name}"
        self._cancel = cancel or threading.Event()
        self._timeout = timeout

    @property
    def is_installed(self) -> bool:
        """Whether the program is on PATH."""
        return shutil.which(self.program) is not None

    def find_program(self, server: str) -> str:
        """Return the program's path.

        Args:
            server: for the error message.
        Raises:
            AccessDenied: the program is not installed.
        """
        path = shutil.which(self.program)
        if path is None:
            raise AccessDenied(
                f"{self.program}, which stores the credentials for {server}, is not installed",
                remedy="install it, or remove it from docker's config.json and log in again",
            )
        return path

    def get(self, server: str) -> Credentials | None:
        """Return the credentials for a server; None if the helper has none.

        Raises:
            AccessDenied: the helper is missing, failed, timed out, or wrote invalid output.
            Cancelled: the cancel event was set.
        """
        code, output = self._run("get", server, server.encode())
        if code != 0:
            if _NOT_FOUND_MESSAGE in output:
                return None
            raise self._helper_error("get", server, f"failed with exit code {code}")
        username, secret = _parse_output(output)
        if username is None or secret is None:
            raise self._helper_error("get", server, "printed something that is not a login")
        if username == TOKEN_USER:
            return Credentials.from_identity_token(secret, self.program)
        if not (username or secret):
            return None
        return Credentials(username, secret, source=self.program)

    def store(self, server: str, credentials: Credentials) -> None:
        """Store user and password, or an identity token, in the helper. Raises as `get`."""
        token = credentials.identity_token
        entry = {
            "ServerURL": server,
            "Username": credentials.username if token is None else TOKEN_USER,
            "Secret": credentials.password if token is None else token,
        }
        code, _ = self._run("store", server, json.dumps(entry).encode())
        if code != 0:
            raise self._helper_error("store", server, f"failed with exit code {code}")

    def erase(self, server: str) -> None:
        """Erase a server's login; a server without one is no error. Raises as `get`."""
        code, output = self._run("erase", server, server.encode())
        if code != 0 and _NOT_FOUND_MESSAGE not in output:
            raise self._helper_error("erase", server, f"failed with exit code {code}")

    def _run(self, action: str, server: str, content: bytes) -> tuple[int, bytes]:
        """Run the helper and return its exit code and output."""
        path = self.find_program(server)
        try:
            # In a new session, so that its children can be killed with it.
            process = subprocess.Popen(  # noqa: S603 - the name is checked, the user chose it
                [path, action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            limit = describe_limit(error)
            if error.errno == errno.EAGAIN:  # from fork
                limit = "the system cannot start another process", THREADS_REMEDY
            if limit is not None:
                cause, remedy = limit
                message = f"{self.program} {action} for {server} cannot be run: {cause}"
                raise AccessDenied(message, remedy=remedy) from error
            cause = f"cannot be run: {error.strerror}"
            raise self._helper_error(action, server, cause) from error
        with process:
            try:
                return self._communicate(process, action, server, content)
            except BaseException:  # raised again: the helper must not keep running
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def _communicate(
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
                detach_file_in_child(
                    pipe.fileno()
                )  # otherwise a forked child would keep the pipe open
                selector.register(pipe, event)
            while selector.get_map():
                ready = selector.select(self._next_timeout(deadline, action, server))
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        content = _write_available(process.stdin, content)
                        if not content:
                            selector.unregister(process.stdin)
                            _close(process.stdin)
                    elif not _read_available(process.stdout, output):
                        selector.unregister(process.stdout)
                if len(output) > _MAX_OUTPUT_SIZE:
                    raise self._helper_error(
                        action, server, f"wrote more than {_MAX_OUTPUT_SIZE} bytes"
                    )
                if not ready and process.poll() is not None:
                    break  # a background child of the helper keeps its output open
        _close(process.stdin)
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._next_timeout(deadline, action, server))
        return process.returncode, bytes(output)

    def _next_timeout(self, deadline: float, action: str, server: str) -> float:
        """Return the seconds until the next check; raise if cancelled or timed out."""
        if self._cancel.is_set():
            raise Cancelled(f"{self.program} {action}: cancelled")
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise self._helper_error(action, server, f"did not finish within {self._timeout:g} s")
        return min(remaining, _CANCEL_POLL_INTERVAL)

    def _helper_error(self, action: str, server: str, cause: str) -> AccessDenied:
        """Return an error without the helper's output, which may hold secrets."""
        return AccessDenied(
            f"{self.program} {action} for {server} {cause}",
            remedy=f"try it: echo {server} | {self.program} {action}"
            if action == "get"
            else f"see the documentation of {self.program}",
        )


def _parse_output(output: bytes) -> tuple[str | None, str | None]:
    """Return user and secret from a helper's output; None and None if it is invalid.

    Docker uses Go's decoder, so some helpers write lower-case names, or a notice after the
    JSON value.
    """
    try:
        document = go_json.decode(output)
    except ValueError:
        return None, None  # the error's message may quote a password
    if not isinstance(document, dict) or not {"username", "secret"} & document.keys():
        return None, None
    # Go decodes a missing or null field as an empty string.
    username, secret = document.get("username"), document.get("secret")
    username, secret = ("" if value is None else value for value in (username, secret))
    if not (isinstance(username, str) and isinstance(secret, str)):
        return None, None
    return username, secret


def _write_available(pipe: IO[bytes], content: bytes) -> bytes:
    """Write as much as the pipe accepts; return the rest."""
    try:
        return content[os.write(pipe.fileno(), content) :]
    except BlockingIOError:
        return content
    except OSError:  # the helper closed its input; its exit code shows whether it failed
        return b""


def _read_available(pipe: IO[bytes], output: bytearray) -> bool:
    """Append the available output; return False at its end."""
    try:
        piece = os.read(pipe.fileno(), _MAX_OUTPUT_SIZE)
    except BlockingIOError:
        return True
    output += piece
    return bool(piece)


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        pipe.close()
