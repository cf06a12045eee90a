"""Reads the token of the live page."""

from __future__ import annotations

import argparse
import os

from concil.errors import UsageError, safe_repr
from concil.runtime.redaction import SECRETS

TOKEN_VARIABLE = "CONCIL_HTTP_TOKEN"  # noqa: S105 - a name
_MIN_TOKEN_LENGTH = 16  # characters
_MAX_TOKEN_LENGTH = 1000  # characters
_REMEDY = "make one with: openssl rand -hex 16"


def refuse_token_without_page(arguments: argparse.Namespace) -> None:
    """Refuse a token without a page.

    Raises:
        UsageError: there is one.
    """
    for option in ("http_token", "http_token_file"):
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise UsageError(
                f"--{name} is for the live page, and there is none",
                remedy=f"add --http 127.0.0.1:8080, or omit --{name}",
            )


def read_token(arguments: argparse.Namespace) -> str:
    """Return the token of the options or of the environment; empty: there is none.

    Raises:
        UsageError: it cannot be read, or is too short.
    """
    if arguments.http_token_file is not None:
        token, name = _read_token_file(arguments.http_token_file), "--http-token-file"
    elif arguments.http_token is not None:
        token, name = arguments.http_token, "--http-token"
    else:
        token, name = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not token:
            return ""
    if not _MIN_TOKEN_LENGTH <= len(token) <= _MAX_TOKEN_LENGTH:
        raise UsageError(
            f"the token of {name} has {len(token)} characters, and needs {_MIN_TOKEN_LENGTH} to "
            f"{_MAX_TOKEN_LENGTH}: a shorter one can be guessed",
            remedy=_REMEDY,
        )
    if not all("!" <= character <= "~" for character in token):
        raise UsageError(
            f"the token of {name} has blanks, or characters that are not ASCII", remedy=_REMEDY
        )
    SECRETS.register(token)
    return token


def _read_token_file(path: str) -> str:
    """Return the token of a file: everything but blanks around it."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path as the user writes it
            return file.read(2 * _MAX_TOKEN_LENGTH).decode("utf-8", "replace").strip()
    except OSError as error:
        raise UsageError(
            f"cannot read the token file {safe_repr(path)}: {error.strerror}", remedy=_REMEDY
        ) from error
