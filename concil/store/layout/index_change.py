"""Changes of index.json, as functions and as lines of the index log."""

from __future__ import annotations

import json

from concil.errors import InvalidManifest
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass
from concil.store.layout.index import Index


@dataclass(frozen=True, slots=True)
class IndexChange:
    """Sets one entry, or removes all entries with a name or digest."""

    name: str | None = None
    entry: Descriptor | None = None  # the entry to set under the name
    digest: Digest | None = None  # the digest to remove if there is no name

    def __call__(self, index: Index) -> int:
        """Apply the change; return the number of entries it changed."""
        if self.entry is not None:
            return index.set_entry(self.name, self.entry)
        if self.name is not None:
            return index.remove(self.name)
        return 0 if self.digest is None else index.remove_digest(self.digest)

    def line(self) -> bytes:
        """Return the change as a line of JSON."""
        fields = {
            "name": self.name,
            "entry": None if self.entry is None else self.entry.to_json(),
            "digest": None if self.digest is None else str(self.digest),
        }
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> IndexChange:
        """Parse the result of `line`.

        Raises:
            InvalidManifest, InvalidDigest: the line is not a change.
        """
        try:
            fields = parse_json(line)
        except InvalidJSON as error:
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
