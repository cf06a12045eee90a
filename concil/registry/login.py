"""A login: whether it is good, kept where docker and podman look for it, dropped again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from concil import retry
from concil.config import RetryPolicy
from concil.errors import UsageError
from concil.registry import auth_disk
from concil.registry.auth_file import AuthFile, host_in, key_of
from concil.registry.credential_helper import CredentialHelper
from concil.registry.credentials import Credentials
from concil.registry.endpoint import Call, Endpoint
from concil.registry.keyring import Keyring
from concil.registry.root import password_refusal
from concil.registry.session import discard


def verify(endpoint: Endpoint, policy: RetryPolicy) -> bool:
    """Ask a registry whether its user is who they say; a wrong password goes out once.

    Returns:
        Whether it looked at them: a registry may let everybody in.
    Raises:
        RegistryDenied: they are not.
        ConcilError: there is no telling.
    """
    credentials = endpoint.auth.credentials
    discard(endpoint.repeat(Call("GET", "/v2/"), policy))
    if endpoint.auth.accepted or credentials is None or credentials.identity_token is not None:
        return endpoint.auth.accepted
    # Where nobody needs a password, some still refuse a wrong one.
    refusal = retry.call(
        lambda: password_refusal(endpoint.transport, endpoint.base, credentials, worked=False),
        policy,
        endpoint.cancel,
        lambda: f"GET {endpoint.base}/v2/",
    )
    if refusal is not None:
        raise refusal
    return False


def check(keyring: Keyring, place: str) -> None:
    """Raise what `keep` would, as far as that is known before there is a password."""
    _, helper = _shelved(keyring, place)
    if helper is not None:
        helper.locate(key_of(place))


def keep(keyring: Keyring, place: str, credentials: Credentials) -> str:
    """Keep user and password for a place: in a helper, or else in a file.

    The file is the first that says anything of the place, for what it says would be found
    before any other; else the one for new logins. All else that is in it stays.

    Returns:
        Where, for people.
    Raises:
        AccessDenied: the file is broken, or the helper failed; nothing has changed.
        StoreError: the file cannot be written.
        UsageError: a helper keeps the host, and helpers know no parts of one.
    """
    path, helper = _shelved(keyring, place)
    if helper is not None:
        helper.store(key_of(place), credentials)
    kept = credentials if helper is None else None
    auth_disk.change(path, lambda file: file.with_entry(place, kept))
    return helper.program if helper is not None else str(path)


def drop(keyring: Keyring, place: str) -> list[str]:
    """Drop the login for a place, from every file and helper where it would be found.

    Returns:
        From where, for people; nothing: there was none.
    Raises:
        AccessDenied: a file is broken, or a helper failed.
        StoreError: a file cannot be written.
    """
    found = []
    for path, file in _present(keyring):
        helper = keyring.helper(file, place) if "/" not in place else None
        if helper is not None and not helper.is_installed and not _concerns(file, place):
            helper = None  # a leftover, as for the look-up
        if helper is not None and helper.get(key_of(place)) is not None:
            helper.erase(key_of(place))
            found.append(helper.program)
        if place in file.places:
            auth_disk.change(path, lambda file: file.without_entry(place), create=False)
            found.append(str(path))
    return found


def drop_all(keyring: Keyring) -> list[str]:
    """Drop every login that has an entry, and those of helpers that are for one host.

    What else a helper may keep is not asked for: it may be another program's.
    Returns and raises as `drop`.
    """
    places = {place for _, file in _present(keyring) for place in file.places | file.helped}
    found = [where for place in sorted(places) for where in drop(keyring, place)]
    return list(dict.fromkeys(found))


def _shelved(keyring: Keyring, place: str) -> tuple[Path, CredentialHelper | None]:
    """The file for a login, and the helper that the file names for it."""
    path = next(
        (path for path, file in _present(keyring) if _concerns(file, place)), keyring.shelf.home
    )
    file = auth_disk.read(path) or AuthFile.parse(b"", str(path))
    helper = keyring.helper(file, host_in(place))
    if helper is not None and "/" in place:
        raise UsageError(
            f"{helper.program} keeps the logins of {host_in(place)}, and it knows only "
            "whole registries",
            remedy=f"log in to {host_in(place)}, or name another file with authfile=",
        )
    return path, helper


def _present(keyring: Keyring) -> Iterator[tuple[Path, AuthFile]]:
    for path in keyring.shelf.paths:
        file = auth_disk.read(path)
        if file is not None:
            yield path, file


def _concerns(file: AuthFile, place: str) -> bool:
    """Whether the file has something to say of just this place."""
    return place in file.places or place in file.helped
