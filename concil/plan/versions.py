"""Parses tags as versions, and version ranges."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import total_ordering
from typing import Self

from concil.errors import UsageError, safe_repr
from concil.runtime.dataclass import dataclass

_VERSION = re.compile(
    r"[vV]?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]+))?", re.ASCII
)
_PART = r"(?:\d{1,18}|[xX*])"
_COMPARATOR = re.compile(
    rf"(?P<operator>=|==|!=|>=|<=|>|<|\^|~|~>)?\s*[vV]?"
    rf"(?P<numbers>{_PART}(?:\.{_PART}){{0,2}})(?:-(?P<pre>[0-9A-Za-z.-]+))?",
    re.ASCII,
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
_REMEDY = 'write it as ">=1.2, <2", "^1.4", "~1.4.2", "1.x" or "1.2 - 1.9 || 3.x"'

Numbers = tuple[int, int, int]
_RELEASE_KEY: tuple[tuple[int, int, str], ...] = (
    (2, 0, ""),
)  # a release sorts after all its pre-releases


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A tag that is a version: an optional ``v``, one to three numbers, an optional pre-release.

    Source: Semantic Versioning 2.0.0; missing numbers are read as 0.
    """

    numbers: Numbers
    prerelease: str = ""  # "rc.1" of 1.2.3-rc.1

    @classmethod
    def parse(cls, tag: str) -> Self | None:
        """Parse a tag; None if it is not a version."""
        match = _VERSION.fullmatch(tag)
        if match is None:
            return None
        major, minor, patch = (int(match[n] or 0) for n in (1, 2, 3))
        return cls((major, minor, patch), match[4] or "")

    def __lt__(self, other: Version) -> bool:
        """Order by precedence: Semantic Versioning 2.0.0, item 11."""
        return self._sort_key() < other._sort_key()

    def _sort_key(self) -> tuple[Numbers, tuple[tuple[int, int, str], ...]]:
        return self.numbers, tuple(
            map(_identifier_key, self.prerelease.split("."))
        ) if self.prerelease else _RELEASE_KEY


def _identifier_key(text: str) -> tuple[int, int, str]:
    """Return the sort key of a pre-release identifier: numbers sort before words."""
    return (0, int(text), "") if text.isdecimal() and text.isascii() else (1, 0, text)


VersionTest = Callable[[Version], bool]


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A range of versions: alternatives (``||``) of comparators that must all hold.

    A pre-release matches only if a comparator of the same alternative names one, as in npm
    and in Masterminds/semver, which skopeo uses.
    """

    text: str
    _alternatives: tuple[tuple[bool, tuple[VersionTest, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``>=1.2, <2 || ^3.1``.

        Raises:
            UsageError: it is not a range.
        """
        alternatives = []
        for part in text.split("||"):
            tests: list[VersionTest] = []
            hyphen = _HYPHEN.fullmatch(part.strip())
            if hyphen:
                tests = [
                    _parse_comparator(f">={hyphen[1]}", text),
                    _parse_comparator(f"<={hyphen[2]}", text),
                ]
            else:
                tests = [_parse_comparator(word, text) for word in _split_comparators(part, text)]
            alternatives.append(("-" in part.replace(" - ", ""), tuple(tests)))
        return cls(text, tuple(alternatives))

    def __contains__(self, version: Version) -> bool:
        """Return whether a version is in the range."""
        return any(
            (has_prerelease or not version.prerelease) and all(test(version) for test in tests)
            for has_prerelease, tests in self._alternatives
        )


def _split_comparators(part: str, text: str) -> list[str]:
    """Split an alternative into its comparators, which are separated by commas or blanks."""
    words = []
    rest = part.strip(" ,")
    while rest:
        match = _COMPARATOR.match(rest)
        if match is None or match.end() == 0:
            raise _invalid_range(text)
        words.append(match[0])
        following = rest[match.end() :]
        if following and following[0] not in " ,":
            raise _invalid_range(text)
        rest = following.lstrip(" ,")
    if not words:
        raise _invalid_range(text)
    return words


def _parse_comparator(word: str, text: str) -> VersionTest:
    match = _COMPARATOR.fullmatch(word)
    if match is None:
        raise _invalid_range(text)
    parts = [part for part in match["numbers"].split(".") if part not in "xX*"]
    if any(part in "xX*" for part in match["numbers"].split(".")[: len(parts)]):
        raise _invalid_range(text)  # 1.x.3 has a number after a wildcard
    numbers = tuple(int(part) for part in parts)
    operator = match["operator"] or "="
    return _comparator_test(operator, numbers, match["pre"] or "")


def _comparator_test(operator: str, numbers: tuple[int, ...], pre: str) -> VersionTest:
    least = Version(_pad_numbers(numbers), pre)
    last = len(numbers) - 1  # a bare 1.2 leaves the number after this one open
    is_complete = len(numbers) == len(least.numbers)
    is_same = least.__eq__ if is_complete else _between(least, _next_version(numbers, last))
    first_nonzero = next((n for n, number in enumerate(numbers) if number), last)
    beyond = _next_version(numbers, last)
    tests: dict[str, VersionTest] = {
        "=": is_same,
        "==": is_same,
        "!=": lambda version: not is_same(version),
        "^": _between(least, _next_version(numbers, first_nonzero)),
        "~": _between(least, _next_version(numbers, min(1, last))),
        "~>": _between(least, _next_version(numbers, min(1, last))),
        ">=": lambda version: version >= least,
        "<": lambda version: version < least,
        ">": lambda version: version > least if is_complete else version.numbers >= beyond,
        "<=": lambda version: version <= least if is_complete else version.numbers < beyond,
    }
    return tests[operator]


def _between(least: Version, beyond: Numbers) -> VersionTest:
    return lambda version: version >= least and version.numbers < beyond


def _next_version(numbers: tuple[int, ...], index: int) -> Numbers:
    """Return the lowest numbers above all versions that share the first ``index + 1`` numbers."""
    if index < 0:
        return (10**18, 0, 0)  # "*": numbers have at most eighteen digits
    return _pad_numbers((*numbers[:index], numbers[index] + 1))


def _pad_numbers(numbers: tuple[int, ...]) -> Numbers:
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def _invalid_range(text: str) -> UsageError:
    return UsageError(f"not a range of versions: {safe_repr(text)}", remedy=_REMEDY)
