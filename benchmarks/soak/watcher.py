"""Looks at the tags of the destination during the runs: each must be an image of the source."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping

import requests

from benchmarks.soak.content import Name, SourceImages
from tests.support.images import MANIFEST_ACCEPT, digest_of

_TIMEOUT = 30  # seconds
_PAUSE = 0.02  # seconds between two looks


class Watcher(threading.Thread):
    """Pulls random tags of the destination until it is stopped."""

    def __init__(self, url: str, images: SourceImages, chance: random.Random) -> None:
        """Watch a destination registry.

        Args:
            url: without faults.
        """
        super().__init__(name="watcher")
        self._url = url
        self._images = images
        self._chance = chance
        self._stop_requested = threading.Event()
        self._seen: set[Name] = set()  # tags that were there
        self.looks = 0
        self.problems: list[str] = []

    def stop(self) -> None:
        """Stop, and wait for the end of the thread."""
        self._stop_requested.set()
        self.join()

    def run(self) -> None:
        """Look at one tag after the other."""
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop_requested.wait(_PAUSE):
                name = self._chance.choice(sorted(self._images.current()))
                try:
                    problem = self._look(session, name)
                except requests.RequestException:
                    continue  # the registry is being restarted
                self.looks += 1
                if problem:
                    self.problems.append(f"{':'.join(name)}: {problem}")

    def _look(self, session: requests.Session, name: Name) -> str:
        """Return what is wrong with a tag of the destination; "": nothing."""
        repository, tag = name
        base = f"{self._url}/v2/m/{repository}"
        response = session.get(
            f"{base}/manifests/{tag}", headers={"Accept": MANIFEST_ACCEPT}, timeout=_TIMEOUT
        )
        if response.status_code == requests.codes.not_found:
            was_lost = name in self._seen and not self._images.was_deleted(name)
            return "it was there, and is missing" if was_lost else ""
        if response.status_code != requests.codes.ok:
            return f"status {response.status_code}"
        self._seen.add(name)
        if not self._images.may_name(name, digest_of(response.content)):
            return "no image of the source"
        return self._look_at_blobs(session, base, json.loads(response.content))

    def _look_at_blobs(
        self, session: requests.Session, base: str, manifest: Mapping[str, object]
    ) -> str:
        layers = manifest["layers"]
        assert isinstance(layers, list)
        for descriptor in (manifest["config"], *layers):
            digest = descriptor["digest"]
            response = session.get(f"{base}/blobs/{digest}", timeout=_TIMEOUT)
            if response.status_code != requests.codes.ok:
                return f"blob {digest}: status {response.status_code}"
            if digest_of(response.content) != digest:
                return f"blob {digest} has other bytes"
        return ""
