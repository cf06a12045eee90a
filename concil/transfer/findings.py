"""What a check has found in one image."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from concil.oci.digest import Digest
from concil.runtime.dataclass import dataclass


class Condition(StrEnum):
    """Condition of an image at the destination, and of each part of it."""

    OK = "ok"  # complete; after a deep check every byte is right
    BEHIND = "behind"  # the destination has another image under this name than the source
    MISSING = "missing"  # it does not exist, or a manifest or blob of it does not
    DAMAGED = "damaged"  # some content exists, but with other bytes, or it cannot be read


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of an image that is not as it has to be."""

    condition: Condition  # BEHIND, MISSING or DAMAGED
    kind: str  # "image", "manifest" or "blob"
    digest: Digest  # that it has to have
    size: int | None  # bytes; None: unknown
    detail: str  # one line: what is wrong, without the name of the part
    platform: str = ""  # of a manifest in an index
    is_repaired: bool = False
    remedy: str = ""  # what the user can do, if a repair could not mend it

    @property
    def subject(self) -> str:
        """Name of the part in messages, such as "blob sha256:... (3 bytes)"; "" for an image."""
        if self.kind == "image":
            return ""
        size = f"{self.size} bytes" if self.size is not None else ""
        notes = ", ".join(filter(None, (self.platform, size)))
        return f"{self.kind} {self.digest}{f' ({notes})' if notes else ''}"


def overall_condition(findings: Iterable[Finding]) -> Condition:
    """Return the condition of an image: the gravest of what was not repaired.

    An image that is behind is not damaged as well: it is to be replaced as a whole.
    """
    found = {finding.condition for finding in findings if not finding.is_repaired}
    order = (Condition.BEHIND, Condition.DAMAGED, Condition.MISSING)
    return next((condition for condition in order if condition in found), Condition.OK)
