"""`concil login` and `logout`: who the user of a registry is, kept for the commands that follow."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import logging
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.failures import DONE
from concil.errors import Cancelled, ConcilError, NotFound, UsageError, shown
from concil.reference import Reference
from concil.registry import login
from concil.registry.auth_file import place_of
from concil.registry.credentials import TOKEN_USER, Credentials
from concil.registry.keyring import Keyring, Shelf
from concil.stores import Access

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

logger = logging.getLogger(__name__)

_LIMIT = 64 * 1024  # bytes of a password; the longest are tokens of a few thousand
_API = ("v1", "v2")  # paths of the API that people copy along with a host


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs to the command line."""
    entering = subparsers.add_parser(
        "login",
        help="log in to a registry",
        description="Ask a registry whether user and password are right, and keep them where "
        "docker, podman and skopeo look for them, too. At a terminal it asks for what is missing.",
    )
    entering.add_argument("place", metavar="HOST[/PREFIX]", help="a registry, or a part of it")
    entering.add_argument(
        "-u",
        "--username",
        metavar="USER",
        help=f"the user; {TOKEN_USER}: the password is an identity token",
    )
    ways = entering.add_mutually_exclusive_group()
    ways.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input"
    )
    ways.add_argument(
        "-p",
        "--password",
        metavar="PASSWORD",
        help="the password; everybody on this machine can read it meanwhile",
    )
    ways.add_argument(
        "--get-login", action="store_true", help="only print the user who is logged in"
    )
    options.add_connection(entering)
    entering.set_defaults(work=run_login, ask=ask)
    leaving = subparsers.add_parser(
        "logout",
        help="forget the login for a registry",
        description="Drop the login for a registry from every file and helper where it would "
        "be found.",
    )
    leaving.add_argument("place", metavar="HOST[/PREFIX]", nargs="?", help="as at the login")
    leaving.add_argument("--all", action="store_true", help="every login that the files know of")
    leaving.set_defaults(work=run_logout)
    for parser, what in ((entering, "keep the login in"), (leaving, "drop it from")):
        parser.add_argument(
            "--authfile",
            dest="shelf",
            type=Shelf.of,
            default=None,
            metavar="FILE",
            help=f"{what} this file only, as in podman's auth.json",
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A login that was asked for."""

    reference: Reference  # of a repository that it is for
    place: str  # host[:port][/prefix]
    access: Access


def ask(arguments: argparse.Namespace) -> None:
    """Find out who logs in to where; `run_login` does it.

    It is for the main thread: Ctrl-C reaches no other, and the terminal must get its echo
    back. Whatever is known to be in the way is told before a person types a password.

    Raises:
        UsageError: something is missing and there is nobody to ask, or cannot be used.
        AccessDenied: the file for the login is broken, or its helper is missing.
        Cancelled: the person would rather not.
    """
    reference, place = parse_place(arguments.place)
    access = options.access_of(arguments)
    if not arguments.get_login:
        login.check(_keyring(arguments), place)
        try:
            access = replace(access, credentials=_credentials(arguments, place))
        except KeyboardInterrupt as interrupt:
            if _at_terminal():
                sys.stderr.write("\n")  # the cursor is behind a question
            raise Cancelled("interrupted; nobody was logged in") from interrupt
    arguments.wanted = Wanted(reference, place, access)


def run_login(command: Command) -> int:
    """Log in, or say who is."""
    wanted: Wanted = command.arguments.wanted
    keyring, place = _keyring(command.arguments, command), wanted.place
    credentials = wanted.access.credentials
    if credentials is None:
        found = keyring.find(place)
        if found is None:
            raise NotFound(f"nobody is logged in to {place}", remedy=f"concil login {place}")
        results.put_line(found.username)
        return DONE
    with command.stores() as stores:
        endpoint = stores.endpoint(wanted.reference, wanted.access)
        checked = login.verify(endpoint, options.config_of(command.arguments).retry)
    where = login.keep(keyring, place, credentials)
    if not checked:
        logger.warning("%s lets everybody in: nobody has looked at the password", place)
    with contextlib.suppress(ConcilError):
        if keyring.find(place) != credentials:
            logger.warning("another login for %s comes first: look at DOCKER_AUTH_CONFIG", place)
    command.tell(f"logged in to {place} as {credentials.username}, kept in {where}")
    return DONE


def run_logout(command: Command) -> int:
    """Log out of a registry, or of all."""
    arguments = command.arguments
    keyring = _keyring(arguments, command)
    if arguments.all is (arguments.place is not None):
        raise UsageError("which registry is it to leave?", remedy="write HOST, or --all")
    if arguments.all:
        found = login.drop_all(keyring)
        command.tell(f"logged out: {', '.join(found)}" if found else "nobody was logged in")
        return DONE
    _, place = parse_place(arguments.place)
    found = login.drop(keyring, place)
    left = None
    with contextlib.suppress(ConcilError):
        left = keyring.find(place)
    still = "" if left is None else f"{left.username!a} is logged in there by another login"
    if not found:
        raise NotFound(
            f"there is no login for {place}" + (f", but {still}" if still else ""),
            remedy="drop that: the one for the whole host, or DOCKER_AUTH_CONFIG"
            if still
            else "see: concil login --get-login HOST",
        )
    if still:
        logger.warning("%s: %s", place, still)
    command.tell(f"logged out of {place}: {', '.join(found)}")
    return DONE


def parse_place(text: str) -> tuple[Reference, str]:
    """Read ``[docker://|https://|http://]HOST[:PORT][/PREFIX]``.

    Returns:
        A repository there, and the place as files of logins have it.
    Raises:
        UsageError: it names the part that is wrong.
    """
    scheme, mark, rest = text.partition("://") if "://" in text else ("docker", "", text)
    host, _, prefix = rest.rstrip("/").partition("/")
    if mark and scheme in ("https", "http") and prefix in _API:
        prefix = ""
    if "@" in host:
        raise UsageError("there is a user in front of the host", remedy="write -u USER HOST")
    # With https in front the first part is a host, whatever it looks like.
    explicit = "https" if scheme == "docker" else scheme
    reference = Reference.parse(f"{explicit}://{host}/{prefix or 'x'}")
    if reference.tag is not None or reference.digest is not None:
        raise UsageError(
            f"{shown(prefix)} is one image", remedy="a login is for HOST or HOST/PREFIX"
        )
    if scheme == "docker":
        reference = replace(reference, scheme=scheme)
    return reference, place_of(f"{host}/{prefix}" if prefix else host)


def _keyring(arguments: argparse.Namespace, command: Command | None = None) -> Keyring:
    return Keyring(
        arguments.shelf or Shelf.of(None), cancel=None if command is None else command.stop.event
    )


def _credentials(arguments: argparse.Namespace, place: str) -> Credentials:
    """What was given, and for the rest what a person types."""
    username: str | None = arguments.username
    if username is None and arguments.password_stdin:
        raise UsageError("the password has no user", remedy="give the user with -u USER")
    if username is None:
        username = _typed_user(place)
    if not username or ":" in username:
        raise UsageError(
            "a user's name is not empty and has no colon", remedy="give the user with -u USER"
        )
    if arguments.password is not None:
        logger.warning("others can read what is on a command line: better use --password-stdin")
        password: str = arguments.password
    elif arguments.password_stdin:
        password = _piped()
    else:
        password = _typed_password(place)
    if not password:
        raise UsageError("the password is empty", remedy="give one: with --password-stdin")
    return (
        Credentials.token(password) if username == TOKEN_USER else Credentials(username, password)
    )


def _piped() -> str:
    try:
        content = b"" if sys.stdin is None else sys.stdin.buffer.read(_LIMIT + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not UTF-8"
        # Not from it: what cannot be decoded is a part of such an error.
        raise UsageError(
            f"cannot read the password from standard input: {cause}", remedy="pipe it in"
        ) from None
    if len(content) > _LIMIT:
        raise UsageError(
            f"the password is longer than {_LIMIT} bytes", remedy="pipe in the right one"
        )
    return text.removesuffix("\n").removesuffix("\r")


def _typed_user(place: str) -> str:
    _check_terminal(place, "-u USER --password-stdin")
    # Not by `input`: standard output is for results.
    sys.stderr.write(f"Username for {place}: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _typed_password(place: str) -> str:
    _check_terminal(place, "--password-stdin")
    try:
        return getpass.getpass(f"Password for {place}: ")
    except EOFError:
        return ""


def _check_terminal(place: str, remedy: str) -> None:
    if not _at_terminal():
        raise UsageError(
            f"no terminal to ask at for the login to {place}", remedy=f"give it: {remedy}"
        )


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None
