"""Answers without end: each ends in an error of ours, in little memory and time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from concil.config import MIB
from concil.engine.engine import Engine
from concil.errors import InvalidManifest
from concil.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.hostile.endless_server import FLOODS, create_flood
from tests.hostile.hostile_registry import HostileRegistry, descriptor, failure, image, index
from tests.support.images import digest_of
from tests.support.scripted_server import ScriptedResponse, ScriptedServer

pytestmark = pytest.mark.process

PEAK = 100 * MIB  # bytes a process may need at most
# One process for all attackers, for Python needs longer to start than to refuse one of them.
# VmHWM, and not ru_maxrss: that one remembers the process that started this one.
SCRIPT = """
import json, re, sys
from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.dockerhub import DockerHub
from concil.engine.engine import Engine
from concil.errors import ConcilError
from concil.transfer.journal import Journal

DIGEST = "sha256:" + "0" * 64
config = TransferConfig(workers=int(sys.argv[1]), retry=RetryPolicy(max_attempts=2, backoff_base=0,
max_backoff=0))
timeouts = Timeouts(connect=5, idle=5, commit=5)

def attacks(engine, host):
    hub = DockerHub(f"http://alice:pa55@{host}/app", timeout=5)
    hub._client.policy = config.retry
    yield lambda: engine.copy(f"http://{host}/app:v1", "oci:target:v1")
    yield lambda: sum(1 for _ in engine.list_tags(f"http://{host}/app"))
    yield lambda: engine.pull_blob(f"http://{host}/app@{DIGEST}", "target.blob")
    yield lambda: hub.get_manifest(DIGEST)
    # A status is believed, and so are the bytes of a tag.
    yield lambda: hub.get_manifest("v1")
    yield lambda: hub.post_manifest(b"{}", "v1")
    yield lambda: engine.push_blob(sys.argv[0], f"http://{host}/app")
    yield lambda: hub.has_blob(DIGEST)

for host in sys.argv[2:]:
    ends = []
    with Engine(config, timeouts=timeouts, journal=Journal(None)) as engine:
        for work in attacks(engine, host):
            try:
                work()
            except ConcilError as error:
                ends.append(type(error).__name__)
            else:
                ends.append("no error")
    with open("/proc/self/status") as file:
        peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024
    print(json.dumps([ends, peak]), flush=True)
"""
_MAY_END_WELL = 4  # from here on: see the script


def run(directory: Path, hosts: Sequence[str], workers: int) -> list[tuple[list[str], int]]:
    """Let hosts attack a process; return how its work ended, and its peak memory in bytes."""
    script = directory / "victim.py"
    script.write_text(SCRIPT)
    # What measures coverage needs memory, too.
    plain = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    plain |= {"HOME": str(directory), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(workers), *hosts],
        cwd=directory,
        env=plain,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


# Who asks for a blob by its digest alone gets as much as the registry says there is of it:
# that would fill the disk of this machine, too.
_ENDLESS_FILES = {"body with a huge length"}


def test_no_flood_fills_the_memory_or_lasts(tmp_path: Path, workers: int) -> None:
    ways = [way for way in FLOODS if way not in _ENDLESS_FILES]
    with contextlib.ExitStack() as stack:
        floods = [stack.enter_context(create_flood(way)) for way in ways]

        found = run(tmp_path, [flood.host for flood in floods], workers)

    for way, (ends, peak) in zip(ways, found, strict=True):
        assert "no error" not in ends[:_MAY_END_WELL], (way, ends)
        assert peak < PEAK, way
    assert not list(tmp_path.glob("target.blob"))


BOMBS = {
    "lists": b"[" * 4_000_000,
    "objects": b'{"a":' * 800_000,
    "small lists": b'{"layers":[' + b"[]," * 1_390_000 + b"0]}",
    "small objects": b'{"layers":[' + b"{}," * 1_390_000 + b"0]}",
    "digits": b'{"layers":[],"a":' + b"9" * 4_100_000 + b"}",
    "words": b'{"layers":[' + b'"abc",' * 298_000 + b'"x"]}',
    "escapes": b'{"layers":[], "a": "' + b"\\u4e00" * 690_000 + b'"}',
}


def several() -> tuple[bytes, dict[str, bytes]]:
    """An index of as many large manifests as are read, and these by digest; all at once."""
    words = b'{"layers":[],"a":[' + b'"abcdefg",' * 298_000
    children = [words + b"%d]}" % number for number in range(2)]
    entries = [descriptor(child, OCI_MANIFEST) for child in children]
    return json.dumps(index(*entries)).encode(), {digest_of(child): child for child in children}


def test_no_document_fills_the_memory(tmp_path: Path, workers: int) -> None:
    names = [*BOMBS, "several"]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer()) for _ in names]
        for server, bomb in zip(servers, BOMBS.values(), strict=False):
            server.respond("*", "/v2/app/.*", ScriptedResponse(200, bomb))
        top, below = several()
        servers[-1].respond("*", "/v2/app/.*", ScriptedResponse(200, top))
        for digest, child in below.items():
            servers[-1].respond("*", f"/v2/app/manifests/{digest}", ScriptedResponse(200, child))

        found = run(tmp_path, [server.host for server in servers], workers)

    for name, (ends, peak) in zip(names, found, strict=True):
        # What is small in memory may be copied: it is a manifest of its own kind.
        assert ends[0] == "InvalidManifest" or name in {"escapes", "several"}, (name, ends)
        assert peak < PEAK, name


def test_indexes_that_nest_without_end_are_refused(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    document, kind = image(), OCI_MANIFEST
    digest = hostile.serve_manifest(document)
    for _ in range(12):
        size = len(json.dumps(document))
        document = index({"mediaType": kind, "digest": digest, "size": size})
        digest, kind = hostile.serve_manifest(document, OCI_INDEX), OCI_INDEX

    error = failure(
        lambda: authenticated_engine.copy(
            f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1"
        )
    )

    assert isinstance(error, InvalidManifest)
    assert "are nested more than" in str(error)


def test_an_index_of_too_many_is_refused_before_they_are_fetched(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    child: dict[str, str | int] = {
        "mediaType": OCI_MANIFEST,
        "digest": f"sha256:{'0' * 64}",
        "size": 2,
    }
    hostile.serve_manifest(index(*[child] * 10_001), OCI_INDEX)

    error = failure(
        lambda: authenticated_engine.copy(
            f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1"
        )
    )

    assert isinstance(error, InvalidManifest)
    assert not hostile.registry.matching_requests("GET", "sha256:0000")


def test_a_manifest_of_a_huge_length_is_not_read(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    hostile.serve("manifests/v1", ScriptedResponse(200, b"{}", length=10**15, cut="fin"))

    error = failure(
        lambda: authenticated_engine.copy(
            f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1"
        )
    )

    assert isinstance(error, InvalidManifest)
    assert "larger than" in str(error)
