"""Expands rules for a whole registry to rules for its repositories."""

from __future__ import annotations

from dataclasses import replace

from concil.errors import UsageError, safe_repr
from concil.oci.address import LOCAL_SCHEMES, parse_address
from concil.oci.reference import Reference
from concil.plan.rule import Rule

PLACEHOLDER_REPOSITORY = "concil-probe"  # stands for every repository of a registry


def rule_for_repository(rule: Rule, name: str) -> Rule:
    """Return the rule for one repository; it keeps its name below the target, or its layout."""
    target, *others = (
        each if each is None or each.startswith(LOCAL_SCHEMES) else f"{each.rstrip('/')}/{name}"
        for each in rule.targets
    )
    source, more_targets = f"{rule.source}/{name}", tuple(filter(None, others))
    return replace(
        rule, source=source, target=target, more_targets=more_targets, repository_filter=None
    )


def registry_of(text: str) -> str:
    """Return the registry of an address of a registry or repository, as users write it.

    Raises:
        UsageError: it is the address of a layout.
    """
    address = parse_address(f"{text}/{PLACEHOLDER_REPOSITORY}" if _is_registry(text) else text)
    if not isinstance(address, Reference):
        raise UsageError(f"{safe_repr(text)} is not a registry", remedy="write host[:port]")
    return address.repository_address.removesuffix(f"/{address.repository}")


def display_name(source: str) -> str:
    """Return the address of a repository or registry without user and password."""
    return registry_of(source) if _is_registry(source) else str(parse_address(source))


def _is_registry(text: str) -> bool:
    """Return whether the source of a rule is a registry; a layout never is."""
    return not text.startswith(LOCAL_SCHEMES) and "/" not in text.rpartition("://")[2]
