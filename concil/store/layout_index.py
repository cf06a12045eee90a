"""The index of a layout as a document: its entries, found and changed by name."""

from __future__ import annotations

import itertools
import json
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from concil.content import OCI_INDEX, OCI_MANIFEST, Descriptor, Digest
from concil.errors import ConcilError, InvalidManifest, UsageError, shown
from concil.reference import is_layout_name
from concil.store.multimap import Multimap
from concil.strict_json import InvalidJson, read_json

REF_NAME = "org.opencontainers.image.ref.name"
# containerd writes the full name here and only the tag into REF_NAME, which two images may share.
FULL_NAME = "io.containerd.image.name"

_MOST_PARTS = 2_000_000  # lists, objects and commas: a hundred thousand entries with notes
_MARKS = {"schemaVersion", "manifests"}  # one of these is in every index
_REMEDY = "the layout is damaged; write it again from its source"


Mark = tuple[int, int]  # an index, and how many changes it has had
Edit = tuple[tuple[Descriptor, ...], Descriptor | None]  # entries that went, the one that came


@dataclass(frozen=True, slots=True)
class Edits:
    """What was changed in an index since a mark."""

    mark: Mark  # the next one
    edits: list[Edit]
    anew: bool  # it is not known what was changed: these are all entries


_EDITS = 1_000  # changes that `Index.edits_since` tells; whoever is further behind begins anew
_numbers = itertools.count()


class Index:
    """The document of an index.json. One thread at a time.

    Foreign fields, of the document and of its entries, are kept. What a change or a question
    costs does not grow with the number of entries, unless it says so.
    """

    def __init__(self, document: dict[str, Any], entries: Iterable[tuple[Any, Descriptor]]) -> None:
        """Take a document, and its entries as JSON and as what was read of them."""
        self._fields = {**document, "manifests": []}
        self._number = next(_numbers)
        self._next = 0
        self._entries: dict[int, Descriptor] = {}  # by position, in their order
        self._raw: dict[int, Any] = {}  # of those that have fields of which nothing is known here
        self._exact: Multimap[str, int] = Multimap()  # positions by name
        self._short: Multimap[str, int] = Multimap()  # of names beside which there is a full one
        self._digests: Multimap[Digest, int] = Multimap()
        self._edits: deque[Edit] = deque(maxlen=_EDITS)
        self._changes = 0
        self._listed: tuple[Descriptor, ...] | None = None
        for raw, entry in entries:
            self._put(self._next, raw, entry)

    @classmethod
    def empty(cls) -> Index:
        """An index without entries."""
        return cls({"schemaVersion": 2, "mediaType": OCI_INDEX}, ())

    @classmethod
    def parse(cls, body: bytes, subject: str) -> Index:
        """Read the bytes of a file; ``subject`` is its name, for messages.

        Raises:
            InvalidManifest: it is no index, or an entry of it has no sense.
        """
        try:
            document = read_json(body, most=_MOST_PARTS)
        except InvalidJson as error:
            raise InvalidManifest(f"{subject} is {error}", remedy=_REMEDY) from error
        marks = document.keys() if isinstance(document, dict) else ()
        # An encoder of Go writes null for a list without entries, or leaves it away.
        listed = document.get("manifests") if marks else None
        listed = [] if marks and listed is None else listed
        is_manifest = bool({"layers", "config"} & set(marks))
        if not isinstance(listed, list) or is_manifest or not _MARKS & set(marks):
            raise InvalidManifest(f"{subject} is not an image index", remedy=_REMEDY)
        try:
            return cls(document, _entries(listed))
        except (ConcilError, TypeError) as error:
            raise InvalidManifest(f"{subject}: {error}", remedy=_REMEDY) from error

    def copy(self) -> Index:
        """Return another one with the same content. Takes time for each entry."""
        return Index(self._fields, ((self._json(p), entry) for p, entry in self._entries.items()))

    def __eq__(self, other: object) -> bool:
        """Whether both are the same document. Takes time for each entry."""
        return isinstance(other, Index) and self._document() == other._document()

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    __hash__ = None  # type: ignore[assignment]  # a document cannot be hashed

    @property
    def untyped(self) -> int:
        """How many entries have no mediaType. Takes time for each that has foreign fields."""
        return sum(not self._entries[position].media_type for position in self._raw)

    @property
    def entries(self) -> tuple[Descriptor, ...]:
        """All entries, in their order; after a change they are put together anew."""
        if self._listed is None:
            self._listed = tuple(self._entries.values())
        return self._listed

    def body(self) -> bytes:
        """Return it as the bytes of a file. Takes time for each entry."""
        # An entry at a time: a document of all of them would take ten times the memory.
        body = bytearray()
        for number, (name, value) in enumerate(self._fields.items()):
            body += f"{',' if number else '{'}{_dumped(name)}:".encode()
            if name == "manifests":
                for place, position in enumerate(self._entries):
                    body += f"{',' if place else '['}{_dumped(self._json(position))}".encode()
                body += b"]" if self._entries else b"[]"
            else:
                body += _dumped(value).encode()
        body += b"}"
        return bytes(body)

    def find(self, name: str | None, subject: str) -> Descriptor | None:
        """Return the entry of a name, or the only entry for None; None if there is none.

        Raises:
            UsageError: several images fit; it lists the names.
        """
        positions = self._images() if name is None else self._called(name)
        found = [self._entries[position] for position in positions]
        if len({entry.digest for entry in found}) > 1:
            which = "holds" if name is None else f"has under {shown(name)}"
            raise UsageError(
                f"{subject} {which} {len(found)} images: {_listed(found)}",
                remedy="name one of them, or its digest: oci:PATH:NAME, oci:PATH@DIGEST",
            )
        return found[0] if found else None

    def of_digest(self, digest: Digest) -> Descriptor | None:
        """Return the first entry of a digest, None if there is none."""
        position = self._digests.first(digest)
        return None if position is None else self._entries[position]

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return what was changed since a mark."""
        now = self._number, self._changes
        missed = self._changes - mark[1] if mark is not None else 0
        if mark is None or mark[0] != self._number or missed > len(self._edits):
            return Edits(now, [((), entry) for entry in self.entries], anew=True)
        start = len(self._edits) - missed
        return Edits(now, list(itertools.islice(self._edits, start, None)), anew=False)

    def names(self) -> Iterator[str]:
        """Yield a name for each entry that has one: the fullest by which `find` finds it."""
        told = set()
        for entry in self.entries:
            for name in names_of(entry):
                digests = {self._entries[position].digest for position in self._called(name)}
                if digests == {entry.digest}:
                    if name not in told:
                        told.add(name)
                        yield name
                    break

    def set_entry(self, name: str | None, entry: Descriptor) -> bool:
        """Put an entry in the place of the one with its name, or at the end.

        Args:
            name: None for an entry without one: it replaces the nameless one of its digest.
            entry: what it says; a name in its annotations does not count.
        Returns:
            Whether that changes anything.
        """
        notes = {k: v for k, v in entry.annotations.items() if k not in (REF_NAME, FULL_NAME)}
        if name is None:
            same = sorted(self._digests.of(entry.digest))
            places = [p for p in same if _nameless(self._entries[p], entry.digest)]
        else:
            notes[REF_NAME] = name
            places = list(self._called(name))
            if len({self._entries[p].annotations.get(FULL_NAME) for p in places}) > 1:
                # Several images of containerd share the short name: none of them is replaced.
                places = []
        entry = replace(entry, annotations=notes)
        raw = entry.to_json() | ({} if entry.media_type else {"mediaType": None})
        if len(places) == 1 and self._json(places[0]) == raw:
            return False
        gone = tuple(self._forget(position) for position in places)
        for position in places[1:]:
            del self._entries[position]
        self._put(places[0] if places else self._next, raw, entry)
        self._note((gone, entry))
        return True

    def remove(self, name: str) -> int:
        """Remove all entries of a name; return how many there were."""
        return self._remove(self._called(name))

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest, named or not; return how many there were."""
        return self._remove(self._digests.of(digest))

    def _images(self) -> Sequence[int]:
        """Where the images are: signatures and the like, which have no name, only if alone."""
        found = [
            position
            for position, entry in self._entries.items()
            if not (entry.artifact_type and _nameless(entry, entry.digest))
        ]
        return found or list(self._entries)

    def _called(self, name: str) -> Sequence[int]:
        """The positions of a name.

        The short name of an entry that has a full name counts only where no entry has
        exactly that name.
        """
        return sorted(self._exact.of(name) or self._short.of(name))

    def _remove(self, positions: Collection[int]) -> int:
        if positions:
            self._note((tuple(self._forget(position) for position in positions), None))
        for position in positions:
            del self._entries[position]
        return len(positions)

    def _put(self, position: int, raw: Any, entry: Descriptor) -> None:  # noqa: ANN401 - JSON
        same = self.of_digest(entry.digest)
        if same is not None and same.digest is not entry.digest:
            entry = replace(entry, digest=same.digest)  # one image may have very many names
        self._entries[position] = entry
        self._next = max(self._next, position + 1)
        if raw != entry.to_json():
            self._raw[position] = raw
        self._digests.add(entry.digest, position)
        for positions, name in self._named(entry):
            positions.add(name, position)

    def _forget(self, position: int) -> Descriptor:
        """Find the entry of a position no more; the caller removes or replaces it."""
        entry = self._entries[position]
        self._raw.pop(position, None)
        self._digests.discard(entry.digest, position)
        for positions, name in self._named(entry):
            positions.discard(name, position)
        return entry

    def _named(self, entry: Descriptor) -> Iterator[tuple[Multimap[str, int], str]]:
        short, full = map(entry.annotations.get, (REF_NAME, FULL_NAME))
        if full:
            yield self._exact, full
        if short and short != full:
            yield (self._short if full else self._exact), short

    def _note(self, edit: Edit) -> None:
        self._listed = None
        self._changes += 1
        self._edits.append(edit)

    def _json(self, position: int) -> Any:  # noqa: ANN401 - the JSON edge
        raw = self._raw.get(position)
        return self._entries[position].to_json() if raw is None else raw

    def _document(self) -> dict[str, Any]:
        return {**self._fields, "manifests": [self._json(position) for position in self._entries]}


def _entries(listed: list[Any]) -> Iterator[tuple[Any, Descriptor]]:
    """Read entries; each leaves the list, so that not all are in memory in both forms."""
    listed.reverse()
    while listed:
        raw = listed.pop()
        yield raw, _entry(raw)


def _dumped(value: Any) -> str:  # noqa: ANN401 - the JSON edge
    return json.dumps(value, separators=(",", ":"))


def _entry(raw: Any) -> Descriptor:  # noqa: ANN401 - the JSON edge
    """Read an entry; the media type of one that has none is "", as that of any manifest."""
    if not isinstance(raw, dict) or raw.get("mediaType"):
        if isinstance(raw, dict) and isinstance(raw["mediaType"], str):
            raw["mediaType"] = sys.intern(raw["mediaType"])  # most entries have the same
        return Descriptor.from_json(raw)
    return replace(Descriptor.from_json({**raw, "mediaType": OCI_MANIFEST}), media_type="")


def names_of(entry: Descriptor) -> list[str]:
    """Return the names of an entry, the one with its repository first, odd ones last."""
    names = filter(None, map(entry.annotations.get, (FULL_NAME, REF_NAME)))
    return sorted(names, key=lambda name: not is_layout_name(name))


def _listed(entries: list[Descriptor]) -> str:
    notes = [(e.annotations.get(FULL_NAME), e.annotations.get(REF_NAME), e) for e in entries]
    return shown(", ".join(full or short or f"@{e.digest}" for full, short, e in notes), 400)


def _nameless(entry: Descriptor, digest: Digest) -> bool:
    return entry.digest == digest and not {REF_NAME, FULL_NAME} & entry.annotations.keys()
