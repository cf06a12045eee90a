"""Notification: one message, as the JSON that a webhook or command receives."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime

from concil import __version__
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import count_of
from concil.runtime.redaction import SECRETS

SCHEMA_VERSION = 1
MAX_SUBJECTS = 100  # that one notification lists


@dataclass(frozen=True, slots=True)
class Subject:
    """What a notification is about: an image, an entry that cannot be listed, a run or a host."""

    kind: str  # "image", "entry", "run" or "quota"
    source: str = ""  # of an image or entry
    destination: str = ""  # of an image
    digest: str = ""  # of a new image
    reason: str = ""  # of a failure
    remedy: str = ""  # of a failure
    host: str = ""  # of a quota
    remaining: int | None = None  # requests of a quota
    limit: int | None = None  # requests of a quota

    @property
    def cause(self) -> str:
        """The name under which it is remembered that this was notified."""
        return " ".join(filter(None, (self.kind, self.host, self.source, self.destination)))

    def to_json(self) -> dict[str, object]:
        """Return the fields that say something."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: SECRETS.redact(value) if isinstance(value, str) else value
            for name, value in values.items()
            if value not in ("", None)
        }


@dataclass(frozen=True, slots=True)
class Notification:
    """One message about one or many subjects of the same event."""

    event: str  # "failure", "recovery", "new" or "quota"
    plan: str  # name of the file
    destination: str  # of the mirror, without user and password; "" if the plan names them
    subjects: Sequence[Subject]
    reasons: Mapping[str, str] = field(default_factory=dict)  # by cause; "" for a recovery
    id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")

    def to_json(self) -> bytes:
        """Return the body. Its schema is docs/reference/notification.schema.json."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "concil": __version__,
            "id": self.id,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": self.event,
            "plan": self.plan,
            "destination": self.destination,
            "text": self.text,
            "count": len(self.subjects),
            "subjects": [subject.to_json() for subject in self.subjects[:MAX_SUBJECTS]],
        }
        return json.dumps(document, ensure_ascii=True).encode()

    @property
    def text(self) -> str:
        """The message in one line, for people."""
        first = self.subjects[0]
        where = f"concil {self.plan}"
        if self.event == "quota":
            limit = "" if first.limit is None else f" of {first.limit}"
            text = f"{where}: {first.host} has {first.remaining}{limit} requests left"
        else:
            kinds = {subject.kind for subject in self.subjects}
            noun = first.kind if len(kinds) == 1 else "subject"
            count = count_of(len(self.subjects), {"entry": "plan entry"}.get(noun, noun))
            verb = {"failure": "failed", "recovery": "recovered", "new": "copied"}[self.event]
            name = first.destination or first.source
            text = f"{where}: {count} {verb}"
            if name and len(self.subjects) > 1:
                name += f" and {len(self.subjects) - 1} more"
            text += f": {name}" * bool(name) + f": {first.reason}" * bool(first.reason)
        return SECRETS.redact(text)
