"""Bad input: one line that names the thing and the remedy, the exit code, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from concil.errors import StoreError
from concil.fs.partial_file import PartialFile
from concil.oci.manifest import Digest
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from concil.store.archive.docker_writer import DockerArchiveWriter
from tests.cli.runner import FORBIDDING, PATIENCE, Cli, Program, assert_fails, assert_one_line
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    OCI,
    Image,
    digest_of,
    make_blob,
    make_image,
    make_index,
    put_blob,
    put_image,
    write_layout,
)
from tests.support.store_contract import Window
from tests.support.tls import CertificateAuthority

GOOD = digest_of(b"")
REFUSED = "127.0.0.1:1"


def files_below(directory: Path) -> list[str]:
    """Return the names of all files that are not concil's own."""
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".concil")


def blobs_of(directory: Path) -> list[str]:
    return [name for name in files_below(directory) if name.startswith("blobs/")]


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "two words",
        "host.example/UPPER:v1",
        "host.example/name:bad!tag",
        "host.example/../name:v1",
        "host.example:99999/name",
        "host.example/name@sha256:abc",
        "host.example/name@sha256:../../etc/passwd",
        "host.example/name@md5:d41d8cd98f00b204e9800998ecf8427e",
        f"host.example/name@sha256:{'A' * 64}",
        "ftp://host.example/name:v1",
        "oci:",
        "oci:dir:../name",
        "\x1b[31mred:v1",
    ],
)
@pytest.mark.parametrize("verb", ["digest", "copy"])
def test_an_unreadable_reference(cli: Cli, tmp_path: Path, verb: str, reference: str) -> None:
    more = (f"oci:{tmp_path}/copy",) if verb == "copy" else ()

    assert_fails(cli(verb, reference, *more), 2)
    assert files_below(tmp_path) == []


def test_a_digest_that_could_be_a_path(cli: Cli, tmp_path: Path) -> None:
    for text in ("sha256:../../../x", f"sha256:{'a' * 63}", f"sha256:{'a' * 65}"):
        result = cli("blob", "pull", f"host.example/name@{text}", "-o", tmp_path / "out")

        assert_fails(result, 2, "64 lower-case hex digits")


def test_a_blob_needs_a_digest(cli: Cli) -> None:
    assert_fails(cli("blob", "pull", "host.example/name:v1", "-o", "out"), 2, "no digest")
    assert_fails(cli("blob", "head", "host.example/name"), 2, "no digest")


def test_a_file_that_is_none(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert_fails(cli("blob", "push", tmp_path / "none", f"{REFUSED}/x"), 2, "no such file")
    assert_fails(cli("blob", "push", tmp_path, f"{REFUSED}/x"), 2, "is a directory")
    assert_fails(cli("blob", "push", tmp_path / "pipe", f"{REFUSED}/x"), 2, "regular file")


def test_a_repository_that_is_more(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    assert_fails(cli("blob", "push", tmp_path / "file", f"{REFUSED}/x:v1"), 2, "omit the tag")
    assert_fails(cli("blob", "push", tmp_path / "file", f"oci:{tmp_path}"), 2, "not a registry")
    assert_fails(cli("tags", f"{REFUSED}/x:v1"), 2, "omit the tag")


def test_an_unknown_tag_or_repository(cli: Cli, registry: EmbeddedRegistry, tmp_path: Path) -> None:
    put_image(registry.url, "app", "v1", make_image(1))

    for name, part in (("app:v9", "v9"), ("none:v1", "none"), (f"app@{GOOD}", GOOD)):
        result = cli("copy", f"{registry.host}/{name}", f"oci:{tmp_path}/copy:v1")

        assert_fails(result, 4, part, registry.host)
        assert blobs_of(tmp_path / "copy") == []


def test_a_refused_connection(cli: Cli, tmp_path: Path) -> None:
    result = cli("copy", f"{REFUSED}/x:v1", f"oci:{tmp_path}/copy:v1")

    assert_fails(result, 1, REFUSED, "refused")


def test_a_wrong_host_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert_fails(cli("digest", "wrong.example/x:v1"), 1, "wrong.example", "not known")


@contextmanager
def serving_tls(
    directory: Path, authority: CertificateAuthority, *names: str
) -> Iterator[EmbeddedRegistry]:
    context = authority.issue(*names).server_context()
    with EmbeddedRegistry(directory, ssl_context=context) as registry:
        put_image_into(directory)
        yield registry


def put_image_into(directory: Path) -> None:
    """Put an image into a layout that is being served."""
    write_layout(directory.parent / "made", {"app:v1": make_image(1)})
    for path in (directory.parent / "made" / "blobs" / "sha256").iterdir():
        target = directory / "blobs" / "sha256" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    index = (directory.parent / "made" / "index.json").read_bytes()
    (directory / "index.json").write_bytes(index)


def test_an_untrusted_certificate(cli: Cli, directory: Path, ca: CertificateAuthority) -> None:
    with serving_tls(directory, ca) as registry:
        address = f"{registry.host}/app:v1"

        refused = cli("digest", address)
        trusted = cli("digest", "--cacert", ca.path, address)
        careless = [
            cli("digest", option, address) for option in ("--insecure", "--tls-verify=false")
        ]

    assert_fails(refused, 1, registry.host, "certificate", "--cacert")
    assert trusted.code == 0, trusted.err
    assert [(each.code, each.err) for each in careless] == [(0, ""), (0, "")]


def test_a_certificate_for_another_name(
    cli: Cli, directory: Path, ca: CertificateAuthority
) -> None:
    with serving_tls(directory, ca, "other.example") as registry:
        result = cli("digest", "--cacert", ca.path, f"{registry.host}/app:v1")

    assert_fails(result, 1, registry.host, "certificate")


def test_plain_http_behind_https(cli: Cli, registry: EmbeddedRegistry) -> None:
    result = cli("digest", f"https://{registry.host}/app:v1")

    assert_fails(result, 1, registry.host, "does not speak TLS", "http://")


def test_https_behind_plain_http(cli: Cli, directory: Path, ca: CertificateAuthority) -> None:
    with serving_tls(directory, ca) as registry:
        result = cli("--quiet", "digest", "--retry=0", f"http://{registry.host}/app:v1")

    assert_fails(result, 1, registry.host)


@pytest.mark.parametrize("option", ["--cacert=none", "--cacert=/dev/null", "--cacert="])
def test_a_ca_file_that_is_none(cli: Cli, option: str) -> None:
    assert_fails(cli("digest", option, f"{REFUSED}/x"), 2, "--cacert")


class Generous(RegistryBehavior):
    """Serves a manifest of more than 4 MiB."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def before_request(self, request: Request) -> Response | None:
        if "/manifests/" not in request.path:
            return None
        headers = {
            "Content-Type": self._image.media_type,
            "Docker-Content-Digest": self._image.digest,
        }
        return Response(200, headers, self._image.manifest)


@pytest.fixture
def large() -> Image:
    """Return an image with a manifest of more than 4 MiB."""
    image = make_image(1)
    document = json.loads(image.manifest) | {"annotations": {"padding": "x" * 5_000_000}}
    return Image(image.media_type, json.dumps(document).encode(), image.blobs)


def nested(depth: int) -> Image:
    image = make_image(1)
    for _ in range(depth):
        image = make_index([image])
    return image


def test_a_manifest_of_a_registry_larger_than_4_mib(cli: Cli, tmp_path: Path, large: Image) -> None:
    with EmbeddedRegistry(tmp_path / "served", behavior=Generous(large)) as registry:
        result = cli("copy", f"{registry.host}/app:v1", f"oci:{tmp_path}/copy:v1")

    assert_fails(result, 1, "v1", "larger than 4194304 bytes")
    assert blobs_of(tmp_path / "copy") == []


def test_a_manifest_of_a_layout_larger_than_4_mib(cli: Cli, tmp_path: Path, large: Image) -> None:
    write_layout(tmp_path / "layout", {"app:v1": large})

    result = cli("copy", f"oci:{tmp_path}/layout:app:v1", f"oci:{tmp_path}/copy:v1")

    assert_fails(result, 1, "larger than 4194304 bytes")
    assert blobs_of(tmp_path / "copy") == []


@pytest.mark.parametrize("from_registry", [False, True])
def test_an_index_that_nests_without_end(cli: Cli, tmp_path: Path, from_registry: bool) -> None:
    write_layout(tmp_path / "layout", {"app:v1": nested(40)})
    with EmbeddedRegistry(tmp_path / "layout") as registry:
        source = f"{registry.host}/app:v1" if from_registry else f"oci:{tmp_path}/layout:app:v1"

        result = cli("copy", source, f"oci:{tmp_path}/copy:v1")

    assert_fails(result, 1, "nest")
    assert blobs_of(tmp_path / "copy") == []


def test_an_index_that_lists_itself(cli: Cli, tmp_path: Path) -> None:
    # No index has its own digest in it: what is under that digest must be something else.
    entry = {"mediaType": OCI.index, "digest": f"sha256:{'a' * 64}", "size": 500}
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI.index, "manifests": [entry]}).encode()
    write_layout(tmp_path / "layout", {"app:v1": Image(OCI.index, body)})
    (tmp_path / "layout" / "blobs" / "sha256" / ("a" * 64)).write_bytes(body)

    result = cli("copy", f"oci:{tmp_path}/layout:app:v1", f"oci:{tmp_path}/copy:v1")

    assert_fails(result, 1, "a" * 64)
    assert blobs_of(tmp_path / "copy") == []


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, str]:
    """Return a layout one of whose layers has a wrong byte, and that layer's digest."""
    image = make_image(1, (100_000,))
    write_layout(tmp_path / "damaged", {"app:v1": image})
    digest = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    path = tmp_path / "damaged" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    content = bytearray(path.read_bytes())
    content[50_000] ^= 1
    path.write_bytes(content)
    return tmp_path / "damaged", digest


def test_a_blob_whose_bytes_do_not_match(
    cli: Cli, registry: EmbeddedRegistry, damaged: tuple[Path, str], tmp_path: Path
) -> None:
    place, digest = damaged

    with EmbeddedRegistry(place) as source:
        to_registry = cli("copy", f"{source.host}/app:v1", f"{registry.host}/app:v1")
        to_layout = cli("copy", f"{source.host}/app:v1", f"oci:{tmp_path}/copy:v1")
        to_file = cli("blob", "pull", f"{source.host}/app@{digest}", "-o", tmp_path / "out")
        poured = cli("blob", "pull", f"{source.host}/app@{digest}", "-o", "-")

    for result in (to_registry, to_layout, to_file, poured):
        assert result.code == 1
        assert digest in result.err
        assert "damaged" in result.err
    assert len(poured.raw) < (place / "blobs" / digest.replace(":", "/")).stat().st_size
    assert cli("digest", f"{registry.host}/app:v1").code == 4
    assert digest.removeprefix("sha256:") not in " ".join(files_below(tmp_path / "copy"))
    assert cli("tags", f"oci:{tmp_path}/copy").lines == []
    assert not (tmp_path / "out").exists()


def test_a_layout_that_is_broken(cli: Cli, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"app:v1": make_image(1)})
    address = f"oci:{tmp_path}/layout:app:v1"

    for content in (b"{", b"[]", b'{"manifests": 1}', b'{"manifests": [1]}', b"\xff" * 10):
        (tmp_path / "layout" / "index.json").write_bytes(content)

        assert_fails(cli("digest", address), 1, "index.json")
        assert_fails(cli("copy", address, f"{REFUSED}/x"), 1, "index.json")
    (tmp_path / "layout" / "index.json").unlink()
    assert_fails(cli("digest", address), 1, "not a layout")


def test_a_layout_that_is_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    assert_fails(cli("tags", f"oci:{tmp_path}/none"), 4, "there is no layout")
    assert_fails(cli("tags", f"oci:{tmp_path}"), 1, "not a layout")
    assert_fails(cli("tags", f"oci:{tmp_path}/file"), 1)


def test_a_target_that_cannot_be_written(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", make_image(1))
    blob = put_blob(registry.url, "app", make_blob(5, 1000))
    (tmp_path / "file").write_bytes(b"x")
    pull = ("blob", "pull", f"{registry.host}/app@{blob}", "-o")
    copy = ("copy", f"{registry.host}/app:v1")

    assert_fails(cli(*pull, tmp_path), 2, "is a directory")
    assert_fails(cli(*pull, tmp_path / "none" / "out"), 2, "create it first")
    assert_fails(cli(*pull, tmp_path / "file" / "out"), 2, "not a directory")
    assert_fails(cli(*pull, ""), 2, "no output file")
    assert_fails(cli(*pull, "/proc/out"), 1, "/proc")
    assert_fails(cli(*copy, f"oci:{tmp_path}/file:v1"), 1, "file")
    assert_fails(cli(*copy, f"oci:{tmp_path}/file/layout:v1"), 1, "file")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_target_that_may_not_be_written(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    blob = put_blob(registry.url, "app", make_blob(5, 1000))
    (tmp_path / "closed").mkdir(mode=0o500)

    words = ("blob", "pull", f"{registry.host}/app@{blob}", "-o", tmp_path / "closed" / "out")
    result = program(*words, before=FORBIDDING)

    assert_fails(result, 1, "closed", "Permission denied", "owner and the permissions")


def test_a_file_that_may_not_grow(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    blob = put_blob(registry.url, "app", make_blob(5, 4_000_000))
    address = f"{registry.host}/app@{blob}"
    limited = ["prlimit", f"--fsize={1_000_000}", *program.argv("blob", "pull", address, "-o")]

    result = subprocess.run(
        [*limited, str(tmp_path / "out")],
        env=program.environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )

    assert result.returncode == 1
    assert_one_line(result.stderr.decode(), "File too large")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 2 MiB, where the machine lets a test have one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield place
    # Lazily: a test that failed may still hold a file there.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(cli: Cli, registry: EmbeddedRegistry, small_disk: Path, jobs: str) -> None:
    put_image(registry.url, "app", "v1", make_image(1, (4_000_000,)))
    blob = put_blob(registry.url, "app", make_blob(5, 4_000_000))

    pulled = cli("blob", "pull", jobs, f"{registry.host}/app@{blob}", "-o", small_disk / "out")
    copied = cli("copy", jobs, f"{registry.host}/app:v1", f"oci:{small_disk}/layout:v1")

    assert_fails(pulled, 1, "3.8 MiB are missing", "free some space", "try again")
    assert_fails(copied, 1, "MiB are missing", "free some space", "try again")
    assert not (small_disk / "out").exists()
    assert cli("tags", f"oci:{small_disk}/layout").lines == []


def test_a_layer_that_a_full_disk_does_not_take_fails_once(small_disk: Path) -> None:
    layer = gzip.compress(make_blob(1, 3000))  # less than a file object would buffer
    with closing(DockerArchiveWriter(small_disk / "a.tar")) as archive:
        writer = archive.begin_blob(len(layer), Digest.from_bytes(layer))
        with suppress(OSError):
            (small_disk / "other").write_bytes(bytes(3_000_000))

        with pytest.raises(StoreError, match="No space left") as excinfo:
            writer.append(Window(layer))
        writer.close()

    assert "a.tar" in str(excinfo.value)
    assert "free some space" in excinfo.value.remedy


def test_a_disk_without_room_for_the_reports_does_not_end_the_mirror(
    cli: Cli, registry: EmbeddedRegistry, small_disk: Path, tmp_path: Path, jobs: str
) -> None:
    count = 40  # their entries are more than a file object buffers
    for number in range(count):
        put_image(registry.url, "app", f"v{number}", make_image(number))
    lines = [f"{registry.host}/app:v{number}" for number in range(count)]
    (tmp_path / "list").write_text("\n".join(lines))
    reports = (f"--report={small_disk}/r.json", f"--report={small_disk}/r.html")
    with suppress(OSError):
        (small_disk / "other").write_bytes(bytes(3_000_000))

    result = cli("mirror", jobs, *reports, tmp_path / "list", f"{registry.host}/to")

    assert result.code == 1
    assert f"{count} copied" in result.out
    for name in ("r.json", "r.html"):
        assert f"concil: cannot write the report {small_disk}/{name}: No space left" in result.err
    assert sorted(path.name for path in small_disk.iterdir()) == ["other"]
    assert len(cli("tags", f"{registry.host}/to/app").lines) == count


def test_disk_that_becomes_full_is_an_error(small_disk: Path) -> None:
    blob = bytes(1_500_000)
    file = PartialFile(
        small_disk / "out",
        Digest.from_bytes(blob),
        len(blob),
        partial_path=small_disk / "out.partial",
    )
    (small_disk / "other").write_bytes(bytes(1_000_000))

    with pytest.raises(StoreError, match="No space left") as excinfo:
        file.write_at(0, memoryview(blob))

    assert "free some space" in excinfo.value.remedy
    file.close()


@pytest.mark.real
def test_wrong_and_missing_passwords(cli: Cli, tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry", users={"user": "right"}) as registry:
        address = f"{registry.host}/app:v1"

        missing = cli("digest", address)
        wrong = cli("digest", "--creds=user:wrong", address)
        in_address = cli("digest", f"http://user:wrong@{address}")
        copied = cli("copy", f"http://user:wrong@{address}", f"oci:{tmp_path}/copy:v1")
        right = cli("digest", "--creds=user:right", address)

    for result in (missing, wrong, in_address, copied):
        assert_fails(result, 5, registry.host, "credentials")
        assert "wrong" not in result.err
    assert_fails(right, 4)


def test_credentials_without_a_password(cli: Cli) -> None:
    result = cli("copy", "--src-creds=secret", f"{REFUSED}/x", f"{REFUSED}/y")

    assert_fails(result, 2, "USER:PASSWORD")
    assert "secret" not in result.err


def test_missing_source_creates_no_empty_layout(cli: Cli, tmp_path: Path) -> None:
    assert_fails(cli("copy", "http://127.0.0.1:1/x:1", f"oci:{tmp_path}/new:1"), 1)

    assert files_below(tmp_path) == []
    assert not (tmp_path / "new").exists()
