"""No name from a registry, an image or a layout leads out of the target directory."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import ConcilError
from concil.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.hostile.hostile_registry import (
    BLOB,
    HostileRegistry,
    all_paths,
    descriptor,
    failure,
    image,
    index,
)
from tests.support.images import digest_of
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, reply

SECRET = b"what only the owner of this machine may read"
ESCAPES = (
    "../../outside",
    "/tmp/outside",
    "..",
    ".",
    "a/../../outside",
    "..\\outside",
    "C:\\outside",
    "a\x00b",
    "-rf",
    "x" * 129,
    "v1\n",
    "\uff0e\uff0e\uff0foutside",
    "~root",
    "$(touch outside)",
    "%2e%2e%2foutside",
    "",
)


def honest(hostile: HostileRegistry, **fields: object) -> str:
    """Serve an image of a registry; return its address."""
    hostile.serve_manifest(image(**fields))
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)
    return f"http://{hostile.registry.host}/app:v1"


def contents(place: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in place.rglob("*") if p.is_file() and not p.is_symlink()}


# Names from a registry -------------------------------------------------------------


def test_tags_are_no_paths(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    honest(hostile)
    hostile.serve("tags/list", reply(200, json.dumps({"tags": ["v1", *ESCAPES]})))
    found = list(authenticated_engine.list_tags(f"http://{hostile.registry.host}/app"))

    for tag in found:
        address = f"http://{hostile.registry.host}/app:{tag}"
        if tag == "v1":
            authenticated_engine.copy(address, f"oci:{destination}:v1")
        else:
            failure(partial(authenticated_engine.copy, address, f"oci:{destination}"))

    blobs = {path for path in all_paths(destination) if path.parts[0] == "blobs"}
    assert all(len(path.name) == 64 for path in blobs if len(path.parts) == 3)
    assert all("outside" not in seen.path for seen in hostile.registry.requests)


def test_a_title_is_no_file_name(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    names = {
        "org.opencontainers.image.title": "../../outside",
        "io.deis.oras.content.unpack": "true",
    }
    address = honest(hostile, layers=[descriptor(BLOB, annotations=names)], annotations=names)

    authenticated_engine.copy(address, f"oci:{destination}:v1")

    assert not [path for path in all_paths(destination) if "outside" in path.name]


# A layout out of a stranger's archive ----------------------------------------------


def layout(place: Path, entry: dict[str, object] | None = None) -> Path:
    """Write a layout of one honest image, or with an entry of its own."""
    manifest = json.dumps(image()).encode()
    sha256 = place / "blobs" / "sha256"
    sha256.mkdir(parents=True)
    for content in (manifest, b"{}", BLOB):
        (sha256 / digest_of(content).removeprefix("sha256:")).write_bytes(content)
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = entry or descriptor(manifest, OCI_MANIFEST)
    (place / "index.json").write_text(json.dumps(index(entry)))
    return place


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    place = tmp_path / "secret"
    place.write_bytes(SECRET)
    return place


@pytest.fixture
def taken(hostile: HostileRegistry) -> Callable[[], bytes]:
    """A registry that takes every blob; return all that it got."""
    got: list[bytes] = []

    def take(seen: ReceivedRequest) -> ScriptedResponse:
        got.append(seen.read())
        return reply(201)

    hostile.serve("POST blobs/uploads/", reply(202, Location="/v2/app/blobs/uploads/1"))
    hostile.serve("PUT blobs/uploads/1", take)
    return lambda: b"".join(got)


def blob_path(place: Path, content: bytes) -> Path:
    return place / "blobs" / "sha256" / digest_of(content).removeprefix("sha256:")


@pytest.mark.parametrize(
    "part", ["blob", "config", "manifest", "index.json", "oci-layout", "blobs"]
)
def test_a_link_in_a_layout_is_not_read_through(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    *,
    tmp_path: Path,
    secret: Path,
    taken: Callable[[], bytes],
    part: str,
) -> None:
    place = layout(tmp_path / "stranger")
    names = {
        "blob": blob_path(place, BLOB),
        "config": blob_path(place, b"{}"),
        "manifest": blob_path(place, json.dumps(image()).encode()),
    }
    trap = names.get(part, place / part)
    if part == "blobs":
        trap.rename(tmp_path / "moved")
        trap.symlink_to(tmp_path / "moved")
    else:
        trap.unlink()
        trap.symlink_to(secret)

    failure(
        lambda: authenticated_engine.copy(f"oci:{place}", f"http://{hostile.registry.host}/app:v1")
    )

    assert SECRET not in taken()


def test_a_hard_link_is_not_sent_whole_under_another_digest(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    tmp_path: Path,
    secret: Path,
    taken: Callable[[], bytes],
) -> None:
    """Its last bytes are held back until all are known to be right: here that is everything."""
    blob = descriptor(SECRET, digest=digest_of(BLOB))
    manifest = json.dumps(image(layers=[blob])).encode()
    place = layout(tmp_path / "stranger", descriptor(manifest, OCI_MANIFEST))
    blob_path(place, manifest).write_bytes(manifest)
    blob_path(place, BLOB).unlink()
    os.link(secret, blob_path(place, BLOB))

    failure(
        lambda: authenticated_engine.copy(f"oci:{place}", f"http://{hostile.registry.host}/app:v1")
    )

    assert SECRET not in taken()


@pytest.mark.parametrize("digest", ["sha256:../../../secret", "../secret", "sha256:..", "/", 5])
@pytest.mark.parametrize("kind", [OCI_MANIFEST, OCI_INDEX])
def test_the_index_of_a_layout_names_no_paths(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    *,
    tmp_path: Path,
    secret: Path,
    taken: Callable[[], bytes],
    digest: object,
    kind: str,
) -> None:
    place = layout(tmp_path / "stranger", descriptor(SECRET, kind, digest=digest))

    failure(
        lambda: authenticated_engine.copy(f"oci:{place}", f"http://{hostile.registry.host}/app:v1")
    )

    assert secret.read_bytes() == SECRET
    assert not taken()


FILES = ("index.json", "oci-layout", ".concil/sha256-{hex}.partial", "blobs/sha256/{hex}")
TRAPS = [
    *((name, "link") for name in (*FILES, "blobs", "blobs/sha256", ".concil", ".concil/lock")),
    *((name, "hard link") for name in (*FILES, ".concil/lock")),
]


@pytest.mark.parametrize(("trap", "how"), TRAPS)
def test_a_layout_is_no_way_out_for_what_is_written(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    *,
    destination: Path,
    tmp_path: Path,
    trap: str,
    how: str,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    address = honest(hostile)
    layout(destination, descriptor(b"old", OCI_MANIFEST))
    blob_path(destination, BLOB).unlink()
    name = destination / trap.format(hex=digest_of(BLOB).removeprefix("sha256:"))
    name.parent.mkdir(exist_ok=True)
    victim = outside / "victim"
    if how == "hard link":
        victim.write_bytes(name.read_bytes() if name.exists() else SECRET)
        name.unlink(missing_ok=True)
        os.link(victim, name)
    elif name.is_dir():
        name.rename(victim)
        name.symlink_to(victim)
    else:
        victim.write_bytes(name.read_bytes() if name.exists() else SECRET)
        name.unlink(missing_ok=True)
        name.symlink_to(victim)
    before = contents(outside)

    with contextlib.suppress(ConcilError):
        authenticated_engine.copy(address, f"oci:{destination}:v1")

    assert contents(outside) == before


def test_a_link_where_a_blob_is_to_go_is_replaced(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, secret: Path
) -> None:
    honest(hostile)
    destination.parent.mkdir(exist_ok=True)
    destination.symlink_to(secret)

    authenticated_engine.pull_blob(
        f"http://{hostile.registry.host}/app@{digest_of(BLOB)}", destination
    )

    assert secret.read_bytes() == SECRET
    assert destination.read_bytes() == BLOB
    destination.unlink()


def test_a_blob_that_has_no_room_is_refused_before_its_first_byte(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    huge = descriptor(BLOB, size=2**62)
    hostile.serve_manifest(image(layers=[huge]))
    hostile.serve_blob(b"{}")
    hostile.serve(f"blobs/{digest_of(BLOB)}", ScriptedResponse(200, BLOB, length=2**62, cut="fin"))

    error = failure(
        partial(
            authenticated_engine.copy,
            f"http://{hostile.registry.host}/app:v1",
            f"oci:{destination}:v1",
        )
    )

    assert "free some space" in error.remedy
    assert not hostile.registry.matching_requests("GET", digest_of(BLOB))
