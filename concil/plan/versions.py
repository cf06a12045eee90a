"""Tags as versions, and ranges of versions, as people write them in plans."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import total_ordering
from typing import Self

from concil.errors import UsageError, shown

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
_LAST: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)  # a release follows all its pre-releases


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A tag that is a version: one to three numbers, ``v`` in front or not, a pre-release.

    Source: Semantic Versioning 2.0.0; missing numbers are 0, as tags leave them out.
    """

    numbers: Numbers
    pre: str = ""  # "rc.1" of 1.2.3-rc.1

    @classmethod
    def parse(cls, tag: str) -> Self | None:
        """Read a tag; None if it is no version."""
        found = _VERSION.fullmatch(tag)
        if found is None:
            return None
        major, minor, patch = (int(found[n] or 0) for n in (1, 2, 3))
        return cls((major, minor, patch), found[4] or "")

    def __lt__(self, other: Version) -> bool:
        """Order as Semantic Versioning does, item 11."""
        return self._key() < other._key()

    def _key(self) -> tuple[Numbers, tuple[tuple[int, int, str], ...]]:
        return self.numbers, tuple(map(_identifier, self.pre.split("."))) if self.pre else _LAST


def _identifier(text: str) -> tuple[int, int, str]:
    """A part of a pre-release: numbers come before words."""
    return (0, int(text), "") if text.isdecimal() and text.isascii() else (1, 0, text)


Test = Callable[[Version], bool]


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A range of versions: alternatives of comparators that must all hold.

    A pre-release is in it only where a comparator of its alternative names one, as in npm
    and in Masterminds/semver, which skopeo uses.
    """

    text: str
    _alternatives: tuple[tuple[bool, tuple[Test, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``>=1.2, <2 || ^3.1``.

        Raises:
            UsageError: it is no range.
        """
        alternatives = []
        for part in text.split("||"):
            tests: list[Test] = []
            hyphen = _HYPHEN.fullmatch(part.strip())
            if hyphen:
                tests = [_test(f">={hyphen[1]}", text), _test(f"<={hyphen[2]}", text)]
            else:
                tests = [_test(word, text) for word in _words(part, text)]
            alternatives.append(("-" in part.replace(" - ", ""), tuple(tests)))
        return cls(text, tuple(alternatives))

    def __contains__(self, version: Version) -> bool:
        """Whether a version is in it."""
        return any(
            (named or not version.pre) and all(test(version) for test in tests)
            for named, tests in self._alternatives
        )


def _words(part: str, text: str) -> list[str]:
    """The comparators of an alternative, apart by commas or blanks."""
    words = []
    rest = part.strip(" ,")
    while rest:
        found = _COMPARATOR.match(rest)
        if found is None or found.end() == 0:
            raise _refused(text)
        words.append(found[0])
        behind = rest[found.end() :]
        if behind and behind[0] not in " ,":
            raise _refused(text)
        rest = behind.lstrip(" ,")
    if not words:
        raise _refused(text)
    return words


def _test(word: str, text: str) -> Test:
    found = _COMPARATOR.fullmatch(word)
    if found is None:
        raise _refused(text)
    given = [part for part in found["numbers"].split(".") if part not in "xX*"]
    if any(part in "xX*" for part in found["numbers"].split(".")[: len(given)]):
        raise _refused(text)  # 1.x.3 has a hole in it
    numbers = tuple(int(part) for part in given)
    operator = found["operator"] or "="
    return _compared(operator, numbers, found["pre"] or "")


def _compared(operator: str, numbers: tuple[int, ...], pre: str) -> Test:
    least = Version(_filled(numbers), pre)
    last = len(numbers) - 1  # the number that a bare 1.2 leaves free is behind it
    whole = len(numbers) == len(least.numbers)
    same = least.__eq__ if whole else _between(least, _next(numbers, last))
    fixed = next((n for n, number in enumerate(numbers) if number), last)
    beyond = _next(numbers, last)
    tests: dict[str, Test] = {
        "=": same,
        "==": same,
        "!=": lambda version: not same(version),
        "^": _between(least, _next(numbers, fixed)),
        "~": _between(least, _next(numbers, min(1, last))),
        "~>": _between(least, _next(numbers, min(1, last))),
        ">=": lambda version: version >= least,
        "<": lambda version: version < least,
        ">": lambda version: version > least if whole else version.numbers >= beyond,
        "<=": lambda version: version <= least if whole else version.numbers < beyond,
    }
    return tests[operator]


def _between(least: Version, beyond: Numbers) -> Test:
    return lambda version: version >= least and version.numbers < beyond


def _next(numbers: tuple[int, ...], place: int) -> Numbers:
    """The first numbers behind all that begin as these do up to ``place``."""
    if place < 0:
        return (10**18, 0, 0)  # "*": no version is larger than eighteen digits
    return _filled((*numbers[:place], numbers[place] + 1))


def _filled(numbers: tuple[int, ...]) -> Numbers:
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def _refused(text: str) -> UsageError:
    return UsageError(f"not a range of versions: {shown(text)}", remedy=_REMEDY)
