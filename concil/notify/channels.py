"""Delivers one notification: by a signed POST to a webhook, or to the input of a command."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

import requests

from concil.errors import TRANSIENT_STATUS, ConcilError, UsageError, safe_repr
from concil.fs.small_file import read_small_file
from concil.http import errors, proxies
from concil.http.requests_session import create_session
from concil.http.tls_context import environment_ca
from concil.http.urls import host_of
from concil.notify.notification import Notification
from concil.plan.notify_settings import NotifySettings
from concil.runtime.redaction import SECRETS

_SECRET_PREFIX = "whsec_"  # of a secret in base64  # noqa: S105
_MAX_SECRET_SIZE = 4096  # bytes


class NotDelivered(ConcilError):
    """A webhook or command has not accepted a notification; ``transient`` if it may later."""

    def __init__(self, message: str, *, is_transient: bool) -> None:
        """Set the message."""
        super().__init__(message)
        self._is_transient = is_transient

    @property
    def transient(self) -> bool:
        """Whether another attempt may succeed."""
        return self._is_transient


def load_secret(settings: NotifySettings, environment: Mapping[str, str]) -> bytes | None:
    """Return the secret of the webhook; None: it has none.

    A secret that begins with ``whsec_`` is base64, as those of Standard Webhooks are.

    Raises:
        UsageError: it is not set, cannot be read, or is no base64.
    """
    if settings.secret_variable is not None:
        text = environment.get(settings.secret_variable, "")
        source = f"the variable {safe_repr(settings.secret_variable)}"
    elif settings.secret_file is not None:
        source = f"the file {safe_repr(settings.secret_file)}"
        try:
            remedy = "it has the secret of the webhook, and nothing else"
            text = read_small_file(settings.secret_file, _MAX_SECRET_SIZE, remedy).decode()
        except UsageError as error:
            raise UsageError(
                f"{settings.location}: the secret of the webhook: {error.summary}",
                remedy=error.remedy,
            ) from None
        except UnicodeDecodeError:
            raise UsageError(f"{settings.location}: {source} is not text") from None
    else:
        return None
    text = text.strip()
    SECRETS.register(text)
    if not text:
        raise UsageError(
            f"{settings.location}: {source} has no secret of the webhook",
            remedy="set it, or omit it from [notify]",
        )
    if not text.startswith(_SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise UsageError(
            f"{settings.location}: the secret of the webhook begins with {_SECRET_PREFIX} and is "
            "no base64"
        ) from None


def signature_headers(
    identifier: str, body: bytes, secret: bytes | None, now: float
) -> dict[str, str]:
    """Return the headers that name and sign a message.

    Source: Standard Webhooks, "Signature scheme": HMAC-SHA256 of id, timestamp and body.
    """
    timestamp = str(int(now))
    headers = {"webhook-id": identifier, "webhook-timestamp": timestamp}
    if secret is not None:
        signed = b".".join((identifier.encode(), timestamp.encode(), body))
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def post_webhook(
    settings: NotifySettings, notification: Notification, body: bytes, secret: bytes | None
) -> None:
    """Send a notification; a redirect is not followed.

    Raises:
        NotDelivered: there was no answer in time, or it is not 2xx. The message has the host of
            the webhook only, because the rest of its URL may be a secret.
    """
    url = settings.webhook or ""
    action = f"cannot notify the webhook at {host_of(url)}"
    headers = {"Content-Type": "application/json"}
    headers |= signature_headers(notification.id, body, secret, time.time())
    proxy = proxies.find_proxy(url)
    with create_session(pool_maxsize=1) as session:
        try:
            response = session.post(
                url,
                data=body,
                headers=headers,
                timeout=settings.timeout,
                allow_redirects=False,
                stream=True,  # its body does not matter
                verify=environment_ca() or True,
                proxies={} if proxy is None else {url.partition(":")[0]: proxy.url},
            )
            response.close()
        except (requests.RequestException, OSError, ValueError, errors.URLLIB3_ERRORS) as error:
            translated = errors.translate(error, action, has_answered=False)
            raise NotDelivered(str(translated), is_transient=True) from None
    status = response.status_code
    if 200 <= status < 300:
        return
    reason = "it redirects" if 300 <= status < 400 else f"status {status}"
    raise NotDelivered(
        f"{action}: {reason}", is_transient=status in TRANSIENT_STATUS or status >= 500
    )


def run_command(
    settings: NotifySettings,
    body: bytes,
    on_start: Callable[[subprocess.Popen[bytes]], object] = lambda _process: None,
) -> None:
    """Give a notification to a command on its standard input.

    Args:
        on_start: called with the process; another thread may end it with `kill_command`.
    Raises:
        NotDelivered: it cannot be started, fails, or takes too long; then it is killed with its
            children.
    """
    name = safe_repr(settings.command[0])
    try:
        process = subprocess.Popen(  # noqa: S603 - what the plan says
            settings.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise NotDelivered(
            f"cannot run the command {name}: {error.strerror}", is_transient=False
        ) from None
    on_start(process)
    with process:
        try:
            process.communicate(body, settings.timeout)
        except subprocess.TimeoutExpired:
            kill_command(process)
            raise NotDelivered(
                f"the command {name} takes longer than {settings.timeout:g} s", is_transient=True
            ) from None
        except BaseException:  # whatever it is, the command may not stay
            kill_command(process)
            raise
    if process.returncode:
        raise NotDelivered(
            f"the command {name} has failed with {process.returncode}", is_transient=True
        )


def kill_command(process: subprocess.Popen[bytes]) -> None:
    """Kill a command that has not ended, with its children."""
    if process.returncode is None:  # otherwise its number may be that of another process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
