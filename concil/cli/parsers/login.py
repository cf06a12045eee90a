"""Declares `concil login` and `concil logout`."""

from __future__ import annotations

from concil.cli.options import common

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def declare_login(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `login`."""
    parser.description = (
        "Check a user name and password with a registry, and store them where "
        "docker, podman and skopeo look for them, too. On a terminal, prompts for what is missing."
    )
    parser.add_argument(
        "place", metavar="HOST[/PREFIX]", help="a registry, or a prefix of its repositories"
    )
    parser.add_argument(
        "-u",
        "--username",
        metavar="USER",
        help="user name; <token> means that the password is an identity token",
    )
    password_options = parser.add_mutually_exclusive_group()
    password_options.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input"
    )
    password_options.add_argument(
        "-p",
        "--password",
        metavar="PASSWORD",
        help="password; while the command runs, other users of this machine can read it",
    )
    password_options.add_argument(
        "--get-login", action="store_true", help="only print the name of the user who is logged in"
    )
    common.add_connection(parser)
    parser.set_defaults(
        command="concil.cli.commands.login:run_login", prepare="concil.cli.commands.login:prompt"
    )
    _add_authfile(parser, "store the login in")


def declare_logout(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `logout`."""
    parser.description = (
        "Remove the login for a registry from every file and credential helper that "
        "is searched for it."
    )
    parser.add_argument("place", metavar="HOST[/PREFIX]", nargs="?", help="the same as for login")
    parser.add_argument("--all", action="store_true", help="remove every login in the auth files")
    parser.set_defaults(command="concil.cli.commands.login:run_logout")
    _add_authfile(parser, "remove it from")


def _add_authfile(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--authfile",
        dest="login_file",  # not checked as the file of `common.add_registry`: it may be created
        metavar="FILE",
        help=f"{purpose} this file only (the format of podman's auth.json)",
    )
