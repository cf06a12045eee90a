"""Which registries the matrix has: what they do, what is known of them, what they may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from concil.registry.quirks import Quirks, declared_quirks
from concil.server import RegistryBehavior
from tests.personalities.distribution import Distribution2, Distribution3
from tests.personalities.hosted import ACR, ECR, GAR, GHCR, Cloudflare, GARWith400
from tests.personalities.self_hosted import Gitea, GiteaWithoutRoute, Quay, QuayKeepingParts, Zot


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of a matrix, in bytes; the limits of registries shrink with the chunk."""

    chunk: int

    def of(self, size: int) -> int:
        """Return a limit that really is ``size`` where a chunk is 10 MiB."""
        return size * self.chunk // (10 * 1024 * 1024)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of blobs, by what they are called; the last stands for 50 MiB + 7."""
        chunk = self.chunk
        return {
            "0": 0,
            "1": 1,
            "c-1": chunk - 1,
            "c": chunk,
            "c+1": chunk + 1,
            "3c": 3 * chunk,
            "5c+7": 5 * chunk + 7,
        }


MIB = 1024 * 1024
QUICK = Scale(128 * 1024)
FULL = Scale(10 * MIB)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the matrix.

    Args:
        build: makes the registry's personality.
        host: the host name under whose declared quirks it is met; "": an unknown one.
        resumes: whether a broken chunk costs no more than that chunk.
        keeps: whether another process can go on between two chunks.
        lessons: how many chunks may be sent in vain until an unknown host is understood.
        passes: how many times all of it may be sent for that.
    """

    name: str
    build: Callable[[Scale], RegistryBehavior]
    host: str = ""
    resumes: bool = False
    keeps: bool = True
    lessons: int = 0
    passes: int = 0

    def quirks(self, scale: Scale) -> Quirks | None:
        """What is declared of the host, its sizes scaled."""
        if not self.host:
            return None
        known = declared_quirks(self.host)
        assert known != Quirks(), f"nothing is declared of {self.host}"
        largest = known.max_chunk_size
        return replace(
            known,
            max_chunk_size=None if largest is None else scale.of(largest),
            min_chunk_size=scale.of(known.min_chunk_size),
        )


def _ghcr(scale: Scale) -> RegistryBehavior:
    return GHCR(scale.of(4 * MIB))


def _ecr(scale: Scale) -> RegistryBehavior:
    return ECR(scale.of(5 * MIB), scale.of(20 * MIB))


def _acr(scale: Scale) -> RegistryBehavior:
    return ACR(scale.of(20 * MIB))


def _acr_small(scale: Scale) -> RegistryBehavior:
    # Less than a chunk of ours.
    return ACR(scale.of(5 * MIB))


def _cloudflare(scale: Scale) -> RegistryBehavior:
    return Cloudflare(scale.of(5 * MIB), scale.of(100_000_000))


def _cloudflare_small(scale: Scale) -> RegistryBehavior:
    # A plan whose body limit is less than a chunk of ours.
    return Cloudflare(scale.of(5 * MIB), scale.of(8 * MIB))


ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
CASES = (
    Case("distribution 2.8", lambda _: Distribution2()),
    Case("distribution 3", lambda _: Distribution3(), resumes=True),
    Case("zot", lambda _: Zot()),
    Case("Quay", lambda _: Quay(), resumes=True),
    Case("Quay, keeps parts", lambda _: QuayKeepingParts(), resumes=True),
    Case("GHCR, unknown", _ghcr, resumes=True, lessons=2),
    Case("GHCR", _ghcr, "ghcr.io", resumes=True),
    Case("ECR, unknown", _ecr, passes=1, keeps=False),
    Case("ECR", _ecr, ECR_HOST, keeps=False),
    Case("GAR, unknown", lambda _: GAR(), lessons=1, keeps=False),
    Case("GAR 400, unknown", lambda _: GARWith400(), lessons=1, keeps=False),
    Case("GAR", lambda _: GAR(), "europe-docker.pkg.dev", keeps=False),
    Case("ACR, unknown", _acr, lessons=1),
    Case("ACR, PUT of 5 MB", _acr_small, lessons=1),
    Case("ACR", _acr, "team.azurecr.io"),
    Case("Gitea", lambda _: Gitea(), keeps=False),
    Case("Gitea, no route", lambda _: GiteaWithoutRoute(), keeps=False),
    Case("Cloudflare", _cloudflare, resumes=True),
    Case("Cloudflare, 8 MB", _cloudflare_small, resumes=True),
)
