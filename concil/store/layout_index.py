"""The index of a layout as a document: its entries, found and changed by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from concil.content import OCI_INDEX, OCTETS, Descriptor, Digest
from concil.errors import ConcilError, InvalidManifest, UsageError, shown
from concil.reference import is_layout_name
from concil.strict_json import InvalidJson, read_json

REF_NAME = "org.opencontainers.image.ref.name"
# containerd writes the full name here and only the tag into REF_NAME, which two images may share.
FULL_NAME = "io.containerd.image.name"

_MOST_PARTS = 2_000_000  # lists, objects and commas: a hundred thousand entries with notes
_REMEDY = "the layout is damaged; write it again from its source"


class Index:
    """The document of an index.json, never changed: a change makes a new one.

    Foreign fields, of the document and of its entries, are kept.
    """

    def __init__(self, document: dict[str, Any], entries: tuple[Descriptor, ...]) -> None:
        """Take a document whose entries were read."""
        self._document = document
        self.entries = entries
        self._places = _places(entries)

    @classmethod
    def empty(cls) -> Index:
        """An index without entries."""
        return cls({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, ())

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
        if isinstance(document, dict) and document.get("manifests", ()) is None:
            document["manifests"] = []  # umoci writes null for a layout without images
        if not isinstance(document, dict) or not isinstance(document.get("manifests"), list):
            raise InvalidManifest(f"{subject} is not an image index", remedy=_REMEDY)
        try:
            entries = tuple(_entry(entry) for entry in document["manifests"])
        except (ConcilError, TypeError) as error:
            raise InvalidManifest(f"{subject}: {error}", remedy=_REMEDY) from error
        return cls(document, entries)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same document."""
        return isinstance(other, Index) and self._document == other._document

    __hash__ = None  # type: ignore[assignment]  # a document cannot be hashed

    def body(self) -> bytes:
        """Return it as the bytes of a file."""
        return json.dumps(self._document, separators=(",", ":")).encode()

    def find(self, name: str | None, subject: str) -> Descriptor | None:
        """Return the entry of a name, or the only entry for None; None if there is none.

        Raises:
            UsageError: several images fit; it lists the names.
        """
        places = self._images() if name is None else self._places.get(name, ())
        found = [self.entries[place] for place in places]
        if len({entry.digest for entry in found}) > 1:
            which = "holds" if name is None else f"has under {shown(name)}"
            raise UsageError(
                f"{subject} {which} {len(found)} images: {_listed(found)}",
                remedy="name one of them, or its digest: oci:PATH:NAME, oci:PATH@DIGEST",
            )
        return found[0] if found else None

    def _images(self) -> Sequence[int]:
        """Where the images are: signatures and the like, which have no name, only if alone."""
        found = [
            place
            for place, entry in enumerate(self.entries)
            if not (entry.artifact_type and _nameless(entry, entry.digest))
        ]
        return found or range(len(self.entries))

    def names(self) -> Iterator[str]:
        """Yield a name for each entry that has one: the fullest by which `find` finds it."""
        told = set()
        for entry in self.entries:
            for name in names_of(entry):
                if {self.entries[place].digest for place in self._places[name]} == {entry.digest}:
                    if name not in told:
                        told.add(name)
                        yield name
                    break

    def with_entry(self, name: str | None, entry: Descriptor) -> Index:
        """Put an entry in the place of the one with its name, or at the end.

        Args:
            name: None for an entry without one: it replaces the nameless one of its digest.
            entry: what it says; a name in its annotations does not count.
        """
        notes = {k: v for k, v in entry.annotations.items() if k not in (REF_NAME, FULL_NAME)}
        if name is None:
            places = [i for i, e in enumerate(self.entries) if _nameless(e, entry.digest)]
        else:
            notes[REF_NAME] = name
            places = list(self._places.get(name, ()))
            if len({self.entries[i].annotations.get(FULL_NAME) for i in places}) > 1:
                # Several images of containerd share the short name: none of them is replaced.
                places = []
        entry = replace(entry, annotations=notes)
        pairs = list(zip(self._document["manifests"], self.entries, strict=True))
        at = places[0] if places else len(pairs)
        pairs[at : at + 1] = [(entry.to_json(), entry)]
        return self._holding([p for i, p in enumerate(pairs) if i == at or i not in places])

    def without(self, unwanted: Collection[Descriptor]) -> Index:
        """Leave out these entries."""
        pairs = zip(self._document["manifests"], self.entries, strict=True)
        return self._holding([pair for pair in pairs if pair[1] not in unwanted])

    def called(self, name: str) -> list[Descriptor]:
        """Return all entries of a name."""
        return [self.entries[place] for place in self._places.get(name, ())]

    def _holding(self, pairs: list[tuple[Any, Descriptor]]) -> Index:
        raw, entries = [raw for raw, _ in pairs], tuple(entry for _, entry in pairs)
        return Index({**self._document, "manifests": raw}, entries)


def _entry(raw: object) -> Descriptor:
    """Read an entry. One that does not say what it is may be any manifest: its bytes say that."""
    if isinstance(raw, dict) and raw.get("mediaType") in (None, ""):
        raw = {**raw, "mediaType": OCTETS}
    return Descriptor.from_json(raw)


def names_of(entry: Descriptor) -> list[str]:
    """Return the names of an entry, the one with its repository first, odd ones last."""
    names = filter(None, map(entry.annotations.get, (FULL_NAME, REF_NAME)))
    return sorted(names, key=lambda name: not is_layout_name(name))


def _places(entries: tuple[Descriptor, ...]) -> dict[str, list[int]]:
    """Return the positions of the entries of each name.

    The short name of an entry that has a full name counts only where no entry has
    exactly that name.
    """
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        short, full = map(entry.annotations.get, (REF_NAME, FULL_NAME))
        if full:
            exact.setdefault(full, []).append(place)
        if short and short != full:
            (loose if full else exact).setdefault(short, []).append(place)
    return loose | exact


def _listed(entries: list[Descriptor]) -> str:
    notes = [(e.annotations.get(FULL_NAME), e.annotations.get(REF_NAME), e) for e in entries]
    return shown(", ".join(full or short or f"@{e.digest}" for full, short, e in notes), 400)


def _nameless(entry: Descriptor, digest: Digest) -> bool:
    return entry.digest == digest and not {REF_NAME, FULL_NAME} & entry.annotations.keys()
