"""`concil login` and `concil logout`."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import logging
import sys
from dataclasses import replace

from concil.auth.credentials import login
from concil.auth.credentials.credentials import TOKEN_USER, Credentials
from concil.auth.credentials.docker_config import normalize_auth_key
from concil.auth.credentials.keychain import AuthFilePaths, Keychain
from concil.cli.context import CommandContext
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.engine.store_factory import EndpointOptions
from concil.errors import Cancelled, ConcilError, NotFound, UsageError, safe_repr
from concil.oci.reference import Reference
from concil.registry import login_check
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

_MAX_PASSWORD_SIZE = 64 * 1024  # bytes; the longest passwords are tokens of a few thousand
_API_PATHS = ("v1", "v2")  # API paths that users copy together with a host


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A parsed `concil login`, with the credentials to store."""

    reference: Reference  # a repository that the login is for
    auth_key: str  # host[:port][/prefix]
    options: EndpointOptions


def prompt(arguments: argparse.Namespace) -> None:
    """Prompt for missing credentials and prepare the login for `run_login`.

    Runs in the main thread: only there Ctrl-C is seen and the terminal's echo restored.
    Checks that can fail early run before the user types a password.

    Raises:
        UsageError: something is missing and there is no terminal, or it is invalid.
        AccessDenied: the login cannot be stored: a broken file or a missing helper.
        Cancelled: the user pressed Ctrl-C.
    """
    reference, auth_key = parse_registry(arguments.place)
    options = settings.build_endpoint_options(arguments)
    if not arguments.get_login:
        login.check_can_store(_open_keychain(arguments), auth_key)
        try:
            options = replace(options, credentials=_get_credentials(arguments, auth_key))
        except KeyboardInterrupt as interrupt:
            if _has_terminal():
                sys.stderr.write("\n")  # the cursor is after the prompt
            raise Cancelled("interrupted; no login was stored") from interrupt
    arguments.wanted = LoginRequest(reference, auth_key, options)


def run_login(command: CommandContext) -> int:
    """Log in, or print the user who is logged in."""
    request: LoginRequest = command.arguments.wanted
    keychain, auth_key = _open_keychain(command.arguments, command), request.auth_key
    credentials = request.options.credentials
    if credentials is None:
        stored = keychain.find_credentials(auth_key)
        if stored is None:
            raise NotFound(f"not logged in to {auth_key}", remedy=f"concil login {auth_key}")
        results.print_line(stored.username)
        return DONE
    with open_store_factory(command) as stores:
        endpoint = stores.get_endpoint(request.reference, request.options)
        is_verified = login_check.verify_login(
            endpoint, settings.build_config(command.arguments).retry
        )
    location = login.store_login(keychain, auth_key, credentials)
    if not is_verified:
        logger.warning("%s allows anonymous access and did not check the password", auth_key)
    with contextlib.suppress(ConcilError):
        if keychain.find_credentials(auth_key) != credentials:
            logger.warning(
                "another login for %s takes precedence: check DOCKER_AUTH_CONFIG", auth_key
            )
    command.print_message(
        f"logged in to {auth_key} as {credentials.username}, stored in {location}"
    )
    return DONE


def run_logout(command: CommandContext) -> int:
    """Log out of a registry, or of all."""
    arguments = command.arguments
    keychain = _open_keychain(arguments, command)
    if arguments.all is (arguments.place is not None):
        raise UsageError(
            "give either one registry or --all",
            remedy="write HOST to log out of one registry, or --all for every registry",
        )
    if arguments.all:
        locations = login.erase_all_logins(keychain)
        command.print_message(
            f"logged out: {', '.join(locations)}" if locations else "there are no logins"
        )
        return DONE
    _, auth_key = parse_registry(arguments.place)
    locations = login.erase_login(keychain, auth_key)
    remaining = None
    with contextlib.suppress(ConcilError):
        remaining = keychain.find_credentials(auth_key)
    remaining_note = (
        "" if remaining is None else f"{remaining.username!a} is still logged in by another entry"
    )
    if not locations:
        raise NotFound(
            f"there is no login for {auth_key}"
            + (f", but {remaining_note}" if remaining_note else ""),
            remedy="remove that entry: the login for the whole host, or DOCKER_AUTH_CONFIG"
            if remaining_note
            else "see: concil login --get-login HOST",
        )
    if remaining_note:
        logger.warning("%s: %s", auth_key, remaining_note)
    command.print_message(f"logged out of {auth_key}: {', '.join(locations)}")
    return DONE


def parse_registry(text: str) -> tuple[Reference, str]:
    """Parse ``[docker://|https://|http://]HOST[:PORT][/PREFIX]``.

    Returns:
        A repository in the registry, and the key of its login in auth files.
    Raises:
        UsageError: it is invalid; the message names the part that is wrong.
    """
    scheme, separator, rest = text.partition("://") if "://" in text else ("docker", "", text)
    host, _, prefix = rest.rstrip("/").partition("/")
    if separator and scheme in ("https", "http") and prefix in _API_PATHS:
        prefix = ""
    if "@" in host:
        raise UsageError("the registry is written with a user name", remedy="write -u USER HOST")
    # With https:// the first part is always a host, even without a dot or port.
    explicit_scheme = "https" if scheme == "docker" else scheme
    reference = Reference.parse(f"{explicit_scheme}://{host}/{prefix or 'x'}")
    if reference.tag is not None or reference.digest is not None:
        raise UsageError(
            f"{safe_repr(prefix)} is a single image", remedy="write HOST or HOST/PREFIX"
        )
    if scheme == "docker":
        reference = replace(reference, scheme=scheme)
    return reference, normalize_auth_key(f"{host}/{prefix}" if prefix else host)


def _open_keychain(
    arguments: argparse.Namespace, command: CommandContext | None = None
) -> Keychain:
    return Keychain(
        AuthFilePaths.resolve(arguments.login_file),
        cancel=None if command is None else command.shutdown.event,
    )


def _get_credentials(arguments: argparse.Namespace, auth_key: str) -> Credentials:
    """Return the credentials of the options; what is missing is prompted for."""
    username: str | None = arguments.username
    if username is None and arguments.password_stdin:
        raise UsageError("a password is given without a user name", remedy="add -u USER")
    if username is None:
        username = _prompt_username(auth_key)
    if not username or ":" in username:
        raise UsageError("a user name must not be empty or contain a colon", remedy="add -u USER")
    if arguments.password is not None:
        logger.warning(
            "other users can read the command line of a process; --password-stdin is safer"
        )
        password: str = arguments.password
    elif arguments.password_stdin:
        password = _read_password()
    else:
        password = _prompt_password(auth_key)
    if not password:
        raise UsageError("the password is empty", remedy="give one with --password-stdin")
    return (
        Credentials.from_identity_token(password)
        if username == TOKEN_USER
        else Credentials(username, password)
    )


def _read_password() -> str:
    try:
        content = b"" if sys.stdin is None else sys.stdin.buffer.read(_MAX_PASSWORD_SIZE + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8"
        # Not chained to the error, which contains a part of the password.
        raise UsageError(
            f"cannot read the password from standard input: {cause}",
            remedy="pipe the password into the command",
        ) from None
    if len(content) > _MAX_PASSWORD_SIZE:
        raise UsageError(
            f"the password is longer than {_MAX_PASSWORD_SIZE} bytes",
            remedy="check what is piped into the command",
        )
    return text.removesuffix("\n").removesuffix("\r")


def _prompt_username(auth_key: str) -> str:
    _check_terminal(auth_key, "-u USER --password-stdin")
    # Not `input`, which writes the prompt to standard output: that is for results.
    sys.stderr.write(f"Username for {auth_key}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _prompt_password(auth_key: str) -> str:
    _check_terminal(auth_key, "--password-stdin")
    try:
        return getpass.getpass(f"Password for {auth_key}: ")
    except EOFError:
        return ""


def _check_terminal(auth_key: str, remedy: str) -> None:
    if not _has_terminal():
        raise UsageError(
            f"the login to {auth_key} is incomplete, and there is no terminal for a prompt",
            remedy=f"add {remedy}",
        )


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None
