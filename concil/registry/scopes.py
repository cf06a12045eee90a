"""What a token is asked for: scopes of repositories, and what a challenge adds to them."""

from __future__ import annotations

Scopes = tuple[str, ...]


def repository_scope(name: str, *actions: str) -> str:
    """Return ``repository:<name>:<actions>``. Source: distribution, token scope documentation."""
    return f"repository:{name}:{','.join(actions)}"


def pushing(scopes: Scopes) -> Scopes:
    """Return what pushes to the repository, too, that these scopes pull from; else nothing."""
    pulls = len(scopes) == 1 and scopes[0].endswith(":pull")
    return (f"{scopes[0]},push",) if pulls else ()


def joined(scopes: Scopes, offered: str) -> Scopes:
    """Return our scopes, before those of a challenge that name something else.

    A notary server calls the repository by another name than the registry does; a scope
    for the same thing adds nothing, and Quay refuses some of what others offer. Some
    services look at the first scope only.
    """
    ours = {_thing(scope) for scope in scopes}
    return (*scopes, *(scope for scope in offered.split() if _thing(scope) not in ours))


def merged(scopes: Scopes, offered: str) -> Scopes:
    """Return our scopes with a challenge's actions for the same things, and its others."""
    actions: dict[str, dict[str, None]] = {}  # by what they are for, in order
    for scope in (*scopes, *offered.split()):
        listed = scope.rpartition(":")[2]
        actions.setdefault(_thing(scope), {}).update(dict.fromkeys(listed.split(",")))
    return tuple(f"{thing}:{','.join(filter(None, named))}" for thing, named in actions.items())


def _thing(scope: str) -> str:
    """Type and name; a name may hold the colon of a host's port."""
    return scope.rpartition(":")[0]
