"""Entries of a plan for whole registries, as entries for their repositories."""

from __future__ import annotations

from dataclasses import replace

from concil.errors import UsageError, shown
from concil.plan.rules import Rule
from concil.reference import LOCAL_SCHEMES, Reference, parse_address

PROBE = "concil-probe"  # a repository that stands for all of a registry's


def one_of(rule: Rule, name: str) -> Rule:
    """The entry for one repository: it goes to the same name, or into the same layout."""
    target = rule.target
    if target is not None and not target.startswith(LOCAL_SCHEMES):
        target = f"{target.rstrip('/')}/{name}"
    return replace(rule, source=f"{rule.source}/{name}", target=target, repositories=None)


def registry_of(text: str) -> str:
    """The registry of a registry's or repository's address, as people write it.

    Raises:
        UsageError: a layout is none.
    """
    address = parse_address(f"{text}/{PROBE}" if _is_registry(text) else text)
    if not isinstance(address, Reference):
        raise UsageError(f"{shown(text)} is not a registry", remedy="write host[:port]")
    return address.repository_address.removesuffix(f"/{address.repository}")


def named(source: str) -> str:
    """A repository or registry as people write it, without user and password."""
    return registry_of(source) if _is_registry(source) else str(parse_address(source))


def _is_registry(text: str) -> bool:
    """Whether an entry's source is a registry: there are none in layouts."""
    return not text.startswith(LOCAL_SCHEMES) and "/" not in text.rpartition("://")[2]
