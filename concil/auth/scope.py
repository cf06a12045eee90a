"""Builds and merges the scopes of a token request."""

from __future__ import annotations

Scopes = tuple[str, ...]


def repository_scope(name: str, *actions: str) -> str:
    """Return ``repository:<name>:<actions>``. Source: distribution, token scope documentation."""
    return f"repository:{name}:{','.join(actions)}"


def push_scopes(scopes: Scopes) -> Scopes:
    """Return pull and push scopes for a single pull scope; empty for any other scopes."""
    is_single_pull = len(scopes) == 1 and scopes[0].endswith(":pull")
    return (f"{scopes[0]},push",) if is_single_pull else ()


def join_scopes(scopes: Scopes, challenge_scope: str) -> Scopes:
    """Return our scopes followed by the challenge's scopes for other resources.

    A notary server uses another name for the repository than the registry. A challenge's scope
    for the same resource adds nothing, and Quay rejects some of them. Our scopes come first
    because some token services read only the first.
    """
    own_resources = {_resource(scope) for scope in scopes}
    return (
        *scopes,
        *(scope for scope in challenge_scope.split() if _resource(scope) not in own_resources),
    )


def merge_scopes(scopes: Scopes, challenge_scope: str) -> Scopes:
    """Return our scopes merged with a challenge's: one scope per resource, all its actions."""
    actions: dict[str, dict[str, None]] = {}  # actions by resource, in order
    for scope in (*scopes, *challenge_scope.split()):
        scope_actions = scope.rpartition(":")[2]
        actions.setdefault(_resource(scope), {}).update(dict.fromkeys(scope_actions.split(",")))
    return tuple(
        f"{resource}:{','.join(filter(None, resource_actions))}"
        for resource, resource_actions in actions.items()
    )


def _resource(scope: str) -> str:
    """Return a scope's type and name; the name may contain the colon of a port."""
    return scope.rpartition(":")[0]
