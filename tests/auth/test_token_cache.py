"""Slots of tokens, by scopes."""

from __future__ import annotations

from concil.auth.scope import Scopes, repository_scope
from concil.auth.token_cache import TokenCache


def pull(name: str) -> Scopes:
    return (repository_scope(name, "pull"),)


def test_the_slot_that_was_used_least_recently_is_dropped() -> None:
    slots = TokenCache(max_slots=2)
    first = slots.slot_for(pull("a"))
    second = slots.slot_for(pull("b"))

    assert slots.slot_for(pull("a")) is first
    slots.slot_for(pull("c"))

    assert slots.slot_for(pull("a")) is first
    assert slots.slot_for(pull("b")) is not second
