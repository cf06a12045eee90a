"""What a program costs before its first byte is moved."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.bench import Bench, Case, Command, Hosts, concil
from benchmarks.content import TAG, make_image, put_image

VERSION, DIGEST = "concil --version", "concil digest"
PASS, IMPORT_REQUESTS = "python -c pass", "python -c 'import requests'"
NAME = "start/image"


def start(bench: Bench) -> Case:
    """Print the version, and the digest of a small image, beside a bare interpreter."""
    image = make_image(bench.directory / "layout", [(0, 1024)])
    put_image(bench.source, NAME, image)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        reference = f"{hosts.source}/{NAME}:{TAG}"
        crane = {"crane digest": ("crane", "digest", reference)}
        return {
            VERSION: concil("--version"),
            DIGEST: concil("digest", f"{hosts.scheme}://{reference}"),
            PASS: (sys.executable, "-c", "pass"),
            IMPORT_REQUESTS: (sys.executable, "-c", "import requests"),
        } | crane

    def check(program: str, output: str) -> None:
        expected = image.manifest.digest if "digest" in program else ""
        assert expected in output, f"{program}: {output}"

    return Case(0, bench.hosts(), commands, check, close=bench.empty)
