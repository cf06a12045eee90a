"""One change of the index of a layout, as a function and as a line of a log."""

from __future__ import annotations

import json
from dataclasses import dataclass

from concil.content import Descriptor, Digest
from concil.errors import InvalidManifest
from concil.store.layout_index import Index
from concil.strict_json import InvalidJson, read_json


@dataclass(frozen=True, slots=True)
class IndexChange:
    """An entry that is set, or all entries of a name or digest that are removed."""

    name: str | None = None
    entry: Descriptor | None = None  # what is set under the name
    digest: Digest | None = None  # what is removed, where there is no name

    def __call__(self, index: Index) -> int:
        """Make the change; return how many entries it has changed."""
        if self.entry is not None:
            return index.set_entry(self.name, self.entry)
        if self.name is not None:
            return index.remove(self.name)
        return 0 if self.digest is None else index.remove_digest(self.digest)

    def line(self) -> bytes:
        """Return it as a line of JSON."""
        fields = {
            "name": self.name,
            "entry": None if self.entry is None else self.entry.to_json(),
            "digest": None if self.digest is None else str(self.digest),
        }
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> IndexChange:
        """Read what `line` has returned.

        Raises:
            InvalidManifest, InvalidDigest: it is something else.
        """
        try:
            fields = read_json(line)
        except InvalidJson as error:
            raise InvalidManifest(f"a change of an index is {error}") from error
        name = fields.get("name") if isinstance(fields, dict) else 0
        if not isinstance(name, str | None):
            raise InvalidManifest("not a change of an index")
        entry, digest = fields.get("entry"), fields.get("digest")
        return cls(
            name,
            None if entry is None else Descriptor.from_json(entry),
            None if digest is None else Digest.parse(digest),
        )
