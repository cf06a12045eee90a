"""The images at the source, which change between the runs, and what each tag has been."""

from __future__ import annotations

import random
import threading

import requests

from tests.support.images import Image, make_image, make_layer, put_image

TAGS = 10  # of a repository
SIZES = (30_000, 20_000)  # bytes of the layers of each image, besides the shared one
_TIMEOUT = 30  # seconds

Name = tuple[str, str]  # repository and tag


class SourceImages:
    """The images of the source registry. Any thread may read; one thread changes them."""

    def __init__(self, url: str, count: int, chance: random.Random) -> None:
        """Push ``count`` images.

        Args:
            url: of the source registry, without faults.
        """
        self._url = url
        self._chance = chance
        self._shared = make_layer(1, 200_000)
        self._last_seed = 1000
        self._lock = threading.Lock()  # guards the fields below
        self._digests: dict[Name, set[str]] = {}  # all that a tag has ever named
        self._current: dict[Name, str] = {}
        self._deleted: set[Name] = set()  # tags that were deleted at any time
        for number in range(count):
            self.push((f"app{number // TAGS}", f"v{number % TAGS}"))

    def push(self, name: Name) -> None:
        """Push a new image to a tag, new or moved."""
        image = self._make_image()
        with self._lock:  # known before it can be seen anywhere
            self._digests.setdefault(name, set()).add(image.digest)
        put_image(self._url, *name, image)
        with self._lock:
            self._current[name] = image.digest

    def move_tag(self) -> None:
        """Push a new image to one of the tags."""
        self.push(self._chance.choice(sorted(self.current())))

    def delete_tag(self) -> None:
        """Delete one of the tags; its repository keeps others."""
        current = self.current()
        names = [name for name in sorted(current) if name[1] != "v0"]
        name = self._chance.choice(names)
        with self._lock:
            self._deleted.add(name)
        requests.delete(
            f"{self._url}/v2/{name[0]}/manifests/{current[name]}", timeout=_TIMEOUT
        ).raise_for_status()
        with self._lock:
            del self._current[name]

    def add_tag(self) -> None:
        """Push an image to a tag that was deleted, or to a new one."""
        with self._lock:
            missing = sorted(self._deleted - set(self._current))
        self.push(self._chance.choice(missing) if missing else ("app0", f"n{self._last_seed}"))

    def current(self) -> dict[Name, str]:
        """Return the digest of each tag."""
        with self._lock:
            return dict(self._current)

    def may_name(self, name: Name, digest: str) -> bool:
        """Return whether a tag has named this digest at any time."""
        with self._lock:
            return digest in self._digests.get(name, ())

    def was_deleted(self, name: Name) -> bool:
        """Return whether a tag was deleted at any time."""
        with self._lock:
            return name in self._deleted

    def _make_image(self) -> Image:
        self._last_seed += 1
        return make_image(self._last_seed, (*SIZES, self._shared))
