"""Finds the name that a misspelt word was probably meant to be."""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Iterable


def find_similar(word: str, names: Iterable[str]) -> str:
    """Return the name that is most similar to a word; "" if none is similar."""
    import difflib  # noqa: PLC0415  # only for errors

    by_lower_case = {name.lower(): name for name in names}
    # Untrusted text may be long, and the comparison takes quadratic time.
    matches = difflib.get_close_matches(word[:100].lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[matches[0]] if matches else ""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return the question whether a similar name was meant; "" if there is none."""
    name = find_similar(word, names)
    return f"did you mean {name}?" if name else ""
