"""The index.json of a layout: entries by name."""

from __future__ import annotations

import itertools
import json
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from concil.errors import ConcilError, InvalidManifest, UsageError, safe_repr
from concil.oci.address import is_layout_name
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_INDEX, OCI_MANIFEST
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass
from concil.store.layout.multimap import Multimap

REF_NAME = "org.opencontainers.image.ref.name"
# containerd puts the full name here and only the tag in REF_NAME, which may be ambiguous.
CONTAINERD_IMAGE_NAME = "io.containerd.image.name"

_MAX_JSON_PARTS = (
    2_000_000  # lists, objects and commas; enough for 100,000 entries with annotations
)
_MARKS = {"schemaVersion", "manifests"}  # every index has at least one of these
_REMEDY = "the layout is damaged; write it again from its source"


Mark = tuple[int, int]  # the number of an index, and of its changes so far
Edit = tuple[tuple[Descriptor, ...], Descriptor | None]  # the removed entries, the added one


@dataclass(frozen=True, slots=True)
class Edits:
    """The changes of an index since a mark."""

    mark: Mark  # for the next call
    edits: list[Edit]
    anew: bool  # the changes are unknown; `edits` has all entries


_EDITS = 1_000  # changes kept for `Index.edits_since`; callers further behind get all entries
_numbers = itertools.count()


class Index:
    """The document of an index.json. One thread at a time.

    Unknown fields of the document and of its entries are kept. Unless stated otherwise, the
    cost of a call does not depend on the number of entries.
    """

    def __init__(self, document: dict[str, Any], entries: Iterable[tuple[Any, Descriptor]]) -> None:
        """Create an index from a document and its entries, each as JSON and as a descriptor."""
        self._fields = {**document, "manifests": []}
        self._number = next(_numbers)
        self._next = 0
        self._entries: dict[int, Descriptor] = {}  # by position, in document order
        self._raw: dict[int, Any] = {}  # JSON of entries with unknown fields
        self._exact: Multimap[str, int] = Multimap()  # positions by name
        # Short names of entries that also have a full name.
        self._short: Multimap[str, int] = Multimap()
        self._digests: Multimap[Digest, int] = Multimap()
        self._edits: deque[Edit] = deque(maxlen=_EDITS)
        self._changes = 0
        self._listed: tuple[Descriptor, ...] | None = None
        for raw, entry in entries:
            self._put(self._next, raw, entry)

    @classmethod
    def empty(cls) -> Index:
        """Return an index without entries."""
        return cls({"schemaVersion": 2, "mediaType": OCI_INDEX}, ())

    @classmethod
    def parse(cls, body: bytes, subject: str) -> Index:
        """Parse the bytes of a file; ``subject`` is its name, for messages.

        Raises:
            InvalidManifest: it is not an index, or has an invalid entry.
        """
        try:
            document = parse_json(body, max_parts=_MAX_JSON_PARTS)
        except InvalidJSON as error:
            raise InvalidManifest(f"{subject} is {error}", remedy=_REMEDY) from error
        keys = document.keys() if isinstance(document, dict) else ()
        # Go encoders write null for an empty list, or omit it.
        listed = document.get("manifests") if keys else None
        listed = [] if keys and listed is None else listed
        is_manifest = bool({"layers", "config"} & set(keys))
        if not isinstance(listed, list) or is_manifest or not _MARKS & set(keys):
            raise InvalidManifest(f"{subject} is not an image index", remedy=_REMEDY)
        try:
            return cls(document, _entries(listed))
        except (ConcilError, TypeError) as error:
            raise InvalidManifest(f"{subject}: {error}", remedy=_REMEDY) from error

    def copy(self) -> Index:
        """Return a copy. Takes time proportional to the number of entries."""
        return Index(self._fields, ((self._json(p), entry) for p, entry in self._entries.items()))

    def __eq__(self, other: object) -> bool:
        """Compare the documents. Takes time proportional to the number of entries."""
        return isinstance(other, Index) and self._document() == other._document()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    __hash__ = None  # type: ignore[assignment]  # a document cannot be hashed

    @property
    def untyped(self) -> int:
        """Number of entries without mediaType. Takes time for each entry with unknown fields."""
        return sum(not self._entries[position].media_type for position in self._raw)

    @property
    def entries(self) -> tuple[Descriptor, ...]:
        """All entries in document order; the tuple is built again after each change."""
        if self._listed is None:
            self._listed = tuple(self._entries.values())
        return self._listed

    def to_bytes(self) -> bytes:
        """Return the bytes of the file. Takes time proportional to the number of entries."""
        # Encoded one entry at a time: a document of all of them would take ten times the memory.
        body = bytearray()
        for number, (name, value) in enumerate(self._fields.items()):
            body += f"{',' if number else '{'}{_dumped(name)}:".encode()
            if name == "manifests":
                for count, position in enumerate(self._entries):
                    body += f"{',' if count else '['}{_dumped(self._json(position))}".encode()
                body += b"]" if self._entries else b"[]"
            else:
                body += _dumped(value).encode()
        body += b"}"
        return bytes(body)

    def find(self, name: str | None, subject: str) -> Descriptor | None:
        """Return the entry with a name, or the only entry for None; None if there is none.

        Raises:
            UsageError: several images match; the message lists their names.
        """
        positions = self._image_positions() if name is None else self._called(name)
        entries = [self._entries[position] for position in positions]
        if len({entry.digest for entry in entries}) > 1:
            which = "holds" if name is None else f"has, under {safe_repr(name)},"
            raise UsageError(
                f"{subject} {which} {len(entries)} images: {_format_names(entries)}",
                remedy="choose one of them by name or digest: oci:PATH:NAME, oci:PATH@DIGEST",
            )
        return entries[0] if entries else None

    def of_digest(self, digest: Digest) -> Descriptor | None:
        """Return the first entry with a digest, None if there is none."""
        position = self._digests.first(digest)
        return None if position is None else self._entries[position]

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return the changes since a mark."""
        now = self._number, self._changes
        missed_count = self._changes - mark[1] if mark is not None else 0
        if mark is None or mark[0] != self._number or missed_count > len(self._edits):
            return Edits(now, [((), entry) for entry in self.entries], anew=True)
        start = len(self._edits) - missed_count
        return Edits(now, list(itertools.islice(self._edits, start, None)), anew=False)

    def names(self) -> Iterator[str]:
        """Yield a name for each entry that has one: the fullest by which `find` finds it."""
        seen = set()
        for entry in self.entries:
            for name in entry_names(entry):
                digests = {self._entries[position].digest for position in self._called(name)}
                if digests == {entry.digest}:
                    if name not in seen:
                        seen.add(name)
                        yield name
                    break

    def set_entry(self, name: str | None, entry: Descriptor) -> bool:
        """Replace the entry with the same name, or append a new one.

        Args:
            name: None for an unnamed entry, which replaces the unnamed one with its digest.
            entry: the new entry; names in its annotations are ignored.
        Returns:
            Whether the index has changed.
        """
        annotations = {
            k: v for k, v in entry.annotations.items() if k not in (REF_NAME, CONTAINERD_IMAGE_NAME)
        }
        if name is None:
            same_digest = sorted(self._digests.of(entry.digest))
            positions = [p for p in same_digest if _is_unnamed(self._entries[p], entry.digest)]
        else:
            annotations[REF_NAME] = name
            positions = list(self._called(name))
            if (
                len({self._entries[p].annotations.get(CONTAINERD_IMAGE_NAME) for p in positions})
                > 1
            ):
                # Several images of containerd share the short name, so none of them is replaced.
                positions = []
        entry = replace(entry, annotations=annotations)
        raw = entry.to_json() | ({} if entry.media_type else {"mediaType": None})
        if len(positions) == 1 and self._json(positions[0]) == raw:
            return False
        removed = tuple(self._forget(position) for position in positions)
        for position in positions[1:]:
            del self._entries[position]
        self._put(positions[0] if positions else self._next, raw, entry)
        self._note((removed, entry))
        return True

    def remove(self, name: str) -> int:
        """Remove all entries with a name; return how many there were."""
        return self._remove(self._called(name))

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries with a digest, named or not; return how many there were."""
        return self._remove(self._digests.of(digest))

    def _image_positions(self) -> Sequence[int]:
        """Return the positions of images; unnamed artifacts count only if there is nothing else."""
        positions = [
            position
            for position, entry in self._entries.items()
            if not (entry.artifact_type and _is_unnamed(entry, entry.digest))
        ]
        return positions or list(self._entries)

    def _called(self, name: str) -> Sequence[int]:
        """Return the positions of entries with a name.

        The short name of an entry that also has a full name counts only if no entry has exactly
        that name.
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
            # Saves memory: one image may have very many names.
            entry = replace(entry, digest=same.digest)
        self._entries[position] = entry
        self._next = max(self._next, position + 1)
        if raw != entry.to_json():
            self._raw[position] = raw
        self._digests.add(entry.digest, position)
        for positions, name in self._named(entry):
            positions.add(name, position)

    def _forget(self, position: int) -> Descriptor:
        """Remove a position from all lookups; the caller removes or replaces the entry."""
        entry = self._entries[position]
        self._raw.pop(position, None)
        self._digests.discard(entry.digest, position)
        for positions, name in self._named(entry):
            positions.discard(name, position)
        return entry

    def _named(self, entry: Descriptor) -> Iterator[tuple[Multimap[str, int], str]]:
        short, full = map(entry.annotations.get, (REF_NAME, CONTAINERD_IMAGE_NAME))
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
    """Parse the entries and empty the list, so that memory does not hold both forms of all."""
    listed.reverse()
    while listed:
        raw = listed.pop()
        yield raw, _entry(raw)


def _dumped(value: Any) -> str:  # noqa: ANN401 - the JSON edge
    return json.dumps(value, separators=(",", ":"))


def _entry(raw: Any) -> Descriptor:  # noqa: ANN401 - the JSON edge
    """Parse an entry; a missing mediaType becomes ""."""
    if not isinstance(raw, dict) or raw.get("mediaType"):
        if isinstance(raw, dict) and isinstance(raw["mediaType"], str):
            raw["mediaType"] = sys.intern(raw["mediaType"])  # most entries have the same value
        return Descriptor.from_json(raw)
    return replace(Descriptor.from_json({**raw, "mediaType": OCI_MANIFEST}), media_type="")


def entry_names(entry: Descriptor) -> list[str]:
    """Return the names of an entry: the full name first, invalid names last."""
    names = filter(None, map(entry.annotations.get, (CONTAINERD_IMAGE_NAME, REF_NAME)))
    return sorted(names, key=lambda name: not is_layout_name(name))


def _format_names(entries: list[Descriptor]) -> str:
    names = [
        (e.annotations.get(CONTAINERD_IMAGE_NAME), e.annotations.get(REF_NAME), e) for e in entries
    ]
    return safe_repr(", ".join(full or short or f"@{e.digest}" for full, short, e in names), 400)


def _is_unnamed(entry: Descriptor, digest: Digest) -> bool:
    return (
        entry.digest == digest and not {REF_NAME, CONTAINERD_IMAGE_NAME} & entry.annotations.keys()
    )
