"""Finds tags that a repository lacks with one request for its list of tags."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import field

from concil.errors import Cancelled, ConcilError, RegistryNotFound
from concil.oci.descriptor import Descriptor
from concil.registry.client import RegistryClient
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

SAMPLES = 2  # tags that have to be missing before the list is requested
MAX_REPOSITORIES = 100  # a mirror writes its repositories one after the other
_CANCEL_INTERVAL = 0.1  # seconds between checks whether the call was cancelled
_UNKNOWN_NAME = "NAME_UNKNOWN"  # error code of the specification


@dataclass(slots=True)
class _KnownTags:
    """What is known of one repository."""

    begun_samples: int = 0  # first lookups by name, at most `SAMPLES`
    missing_samples: int = 0  # those that found nothing
    ended_samples: int = 0
    has_samples: threading.Event = field(default_factory=threading.Event)  # all have ended
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while the list is read
    is_listed: bool = False  # the list was requested
    tags: set[str] | None = None  # None: unknown
    was_empty: bool = False  # the registry did not know the repository, or it had no tags


class MissingTags:
    """Tags that the destinations of a run lack. Any thread may call any method.

    The first two tags of a repository are looked up by their names. If both are missing, one
    request for the list of tags replaces the lookups of all further tags that are not in it. A
    tag that is in it is looked up nevertheless, so the list costs at most one request more than
    it saves. If the list cannot be read, or has a second page, every tag is looked up.

    A registry may omit a tag that was written a moment ago. Such an image is copied again, which
    changes nothing: its content is addressed by digests.
    Source: distribution-spec, "Listing Tags".
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._lock = threading.Lock()  # guards the field below
        self._repositories: OrderedDict[tuple[str, str], _KnownTags] = OrderedDict()

    def clear(self) -> None:
        """Forget everything, because tags may have been written since."""
        with self._lock:
            self._repositories.clear()

    def find(
        self, client: RegistryClient, tag: str, look_up: Callable[[str], Descriptor | None]
    ) -> Descriptor | None:
        """Return the descriptor of a tag that is probably missing; None if it is.

        Args:
            look_up: looks the tag up by its name.
        Raises:
            Cancelled: while other threads looked up the first tags. Otherwise as ``look_up``.
        """
        known, is_sample = self._known_tags(client)
        if is_sample:
            return self._find_sample(known, tag, look_up)
        cancel = client.endpoint.transport.cancel
        while not known.has_samples.wait(_CANCEL_INTERVAL):
            if cancel.is_set():
                raise Cancelled(f"{client.repository}: cancelled")
        if known.missing_samples == SAMPLES and self._is_missing(known, client, tag):
            return None
        return look_up(tag)

    def record_put(self, client: RegistryClient, reference: str) -> None:
        """Record that a tag was written."""
        with self._lock:
            known = self._repositories.get(_key(client))
        tags = None if known is None else known.tags
        if tags is not None:
            tags.add(reference)

    def was_repository_empty(self, client: RegistryClient) -> bool:
        """Return whether a list has shown that the repository had no tags."""
        with self._lock:
            known = self._repositories.get(_key(client))
        return known is not None and known.was_empty

    def _known_tags(self, client: RegistryClient) -> tuple[_KnownTags, bool]:
        """Return what is known of a repository, and whether this lookup is one of its samples."""
        with self._lock:
            known = self._repositories.setdefault(_key(client), _KnownTags())
            if len(self._repositories) > MAX_REPOSITORIES:
                self._repositories.popitem(last=False)
            is_sample = known.begun_samples < SAMPLES
            known.begun_samples += is_sample
            return known, is_sample

    def _find_sample(
        self, known: _KnownTags, tag: str, look_up: Callable[[str], Descriptor | None]
    ) -> Descriptor | None:
        """Look a tag up by its name, and count it if it is missing."""
        is_missing = False
        try:
            descriptor = look_up(tag)
            is_missing = descriptor is None
            return descriptor
        finally:
            with self._lock:
                known.missing_samples += is_missing
                known.ended_samples += 1
                if known.ended_samples == SAMPLES or not is_missing:
                    known.has_samples.set()

    def _is_missing(self, known: _KnownTags, client: RegistryClient, tag: str) -> bool:
        """Return whether the list shows that a tag is missing; the first call requests it."""
        with known.lock:
            if not known.is_listed:
                known.is_listed = True
                known.tags = _list_tags(client)
                known.was_empty = known.tags is not None and not known.tags
            return known.tags is not None and tag not in known.tags


def _list_tags(client: RegistryClient) -> set[str] | None:
    """Return all tags; None if they cannot be listed by one request."""
    try:
        tags = client.list_first_tags()
    except Cancelled:
        raise
    except RegistryNotFound as error:
        # Any other 404 may mean that the registry has no such list.
        return set() if _UNKNOWN_NAME in str(error) else None
    except ConcilError as error:
        logger.debug("%s: the tags are looked up one by one: %s", client.repository, error)
        return None
    return None if tags is None else set(tags)


def _key(client: RegistryClient) -> tuple[str, str]:
    return client.endpoint.host, client.repository
