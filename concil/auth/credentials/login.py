"""Stores and erases logins where docker and podman look for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from concil.auth.credentials import docker_config_io
from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.docker_config import AuthFile, host_of_key, to_file_key
from concil.auth.credentials.helper import CredentialHelper
from concil.auth.credentials.keychain import Keychain
from concil.errors import UsageError


def check_can_store(keychain: Keychain, auth_key: str) -> None:
    """Raise the errors of `store_login` that can be detected before there is a password."""
    _, helper = _find_storage(keychain, auth_key)
    if helper is not None:
        helper.find_program(to_file_key(auth_key))


def store_login(keychain: Keychain, auth_key: str, credentials: Credentials) -> str:
    """Store a login for an auth key: in a helper, or else in a file.

    The file is the first one with an entry for the key, because that entry would be found
    before any other; otherwise the file for new logins. Its other content is kept.

    Returns:
        The helper's program or the file's path, for messages.
    Raises:
        AccessDenied: the file is malformed, or the helper failed; nothing has changed.
        StoreError: the file cannot be written.
        UsageError: a helper stores the host's logins, and helpers support whole hosts only.
    """
    path, helper = _find_storage(keychain, auth_key)
    if helper is not None:
        helper.store(to_file_key(auth_key), credentials)
    file_credentials = credentials if helper is None else None
    docker_config_io.update_auth_file(
        path, lambda file: file.with_entry(auth_key, file_credentials)
    )
    return helper.program if helper is not None else str(path)


def erase_login(keychain: Keychain, auth_key: str) -> list[str]:
    """Erase the login for an auth key from all files and helpers that have it.

    Returns:
        The helpers and files it was erased from, for messages; empty if there was none.
    Raises:
        AccessDenied: a file is malformed, or a helper failed.
        StoreError: a file cannot be written.
    """
    erased_from = []
    for path, file in _iter_auth_files(keychain):
        helper = keychain.get_helper(file, auth_key) if "/" not in auth_key else None
        if helper is not None and not helper.is_installed and not _has_key(file, auth_key):
            helper = None  # left behind by Docker Desktop, as in `Keychain`
        if helper is not None and helper.get(to_file_key(auth_key)) is not None:
            helper.erase(to_file_key(auth_key))
            erased_from.append(helper.program)
        if auth_key in file.auth_keys:
            docker_config_io.update_auth_file(
                path, lambda file: file.without_entry(auth_key), create=False
            )
            erased_from.append(str(path))
    return erased_from


def erase_all_logins(keychain: Keychain) -> list[str]:
    """Erase all logins with an entry, and those of the hosts in ``credHelpers``.

    Other content of a helper is left alone: it may belong to another program.
    Returns and raises as `erase_login`.
    """
    auth_keys = {
        auth_key
        for _, file in _iter_auth_files(keychain)
        for auth_key in file.auth_keys | file.hosts_with_helper
    }
    erased_from = [
        location for auth_key in sorted(auth_keys) for location in erase_login(keychain, auth_key)
    ]
    return list(dict.fromkeys(erased_from))


def _find_storage(keychain: Keychain, auth_key: str) -> tuple[Path, CredentialHelper | None]:
    """Return the file for a login, and the helper that the file names for it."""
    path = next(
        (path for path, file in _iter_auth_files(keychain) if _has_key(file, auth_key)),
        keychain.auth_files.login_path,
    )
    file = docker_config_io.read_auth_file(path) or AuthFile.parse(b"", str(path))
    helper = keychain.get_helper(file, host_of_key(auth_key))
    if helper is not None and "/" in auth_key:
        raise UsageError(
            f"{helper.program} stores the logins of {host_of_key(auth_key)}, and it stores "
            "logins for whole registries only",
            remedy=f"log in to {host_of_key(auth_key)}, or name another file with authfile=",
        )
    return path, helper


def _iter_auth_files(keychain: Keychain) -> Iterator[tuple[Path, AuthFile]]:
    for path in keychain.auth_files.paths:
        file = docker_config_io.read_auth_file(path)
        if file is not None:
            yield path, file


def _has_key(file: AuthFile, auth_key: str) -> bool:
    """Return whether the file has an entry or a helper for exactly this auth key."""
    return auth_key in file.auth_keys or auth_key in file.hosts_with_helper
