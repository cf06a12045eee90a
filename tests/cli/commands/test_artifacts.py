"""`concil push`, `pull`, `attach` and `referrers`, `manifest push`, and blobs from pipes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import oras.client
import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.engine.artifacts.oras_model import make_model, tree_of
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    assert_same_image,
    digest_of,
    get_blob,
    get_manifest,
    make_blob,
    make_image,
    put_blob,
    put_image,
)

ORAS = shutil.which("oras")
TYPE = "application/vnd.example"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Make files in the directory where commands run."""
    make_model(tmp_path / "model")
    (tmp_path / "config.json").write_bytes(b"{}\n")
    (tmp_path / "with:colon").write_bytes(b"colon")
    return tmp_path


def test_files_are_pushed_and_pulled(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path, jobs: str
) -> None:
    address = f"{registry.host}/models/a:1"
    pushed = cli_here("push", jobs, "config.json:application/json", "model", address)
    pulled = cli_here("pull", jobs, address, "-o", "out")

    digest = digest_of(get_manifest(registry.url, "models/a", "1"))
    assert pushed.lines == [f"{registry.host}/models/a@{digest}"]
    assert "packing model" in pushed.err
    assert "2 files" in pushed.err
    assert pulled.lines == ["out/config.json", "out/model"]
    assert tree_of(here / "out" / "model") == tree_of(here / "model")
    assert (here / "out" / "config.json").read_bytes() == b"{}\n"


def test_options_may_stand_anywhere(cli_here: Cli, registry: EmbeddedRegistry, here: Path) -> None:
    del here
    address = f"{registry.host}/a:1"
    words = ("config.json", "--artifact-type", TYPE, "with:colon", "--annotation=a=b=c", address)
    result = cli_here("push", *words, "--media-type", "text/plain", "--format=json")

    document = json.loads(result.out)
    manifest = json.loads(get_manifest(registry.url, "a", "1"))
    assert document["artifactType"] == manifest["artifactType"] == TYPE
    assert document["files"] == manifest["layers"]
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["text/plain"] * 2
    assert manifest["annotations"]["a"] == "b=c"
    assert document["reference"].endswith(document["digest"])


def test_pull_describes_its_files_as_json(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path
) -> None:
    del here
    cli_here("push", "config.json", f"{registry.host}/a:1", "--title", "deep/c.json")
    result = cli_here("pull", f"{registry.host}/a:1", "-o", "out", "--format=json")

    document = json.loads(result.out)
    assert [file["path"] for file in document["files"]] == ["out/deep/c.json"]
    assert document["files"][0]["digest"] == digest_of(b"{}\n")


def run_with_input(
    program: Program, content: bytes, *words: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        program.argv(*words),
        cwd=program.directory,
        env=program.environment(),
        input=content,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("size", [7, 12_000_000])
def test_standard_input_is_pushed(
    program: Program, registry: EmbeddedRegistry, here: Path, size: int
) -> None:
    content = make_blob(1, size)
    address = f"{registry.host}/dump:1"
    pushed = run_with_input(program, content, "push", "-", address, "--title=db/dump.sql")
    pulled = program("pull", address, "-o", "out")

    assert pushed.returncode == 0, pushed.stderr
    assert pulled.lines == ["out/db/dump.sql"]
    assert (here / "out" / "db" / "dump.sql").read_bytes() == content


def test_standard_input_becomes_a_blob_and_a_manifest(
    program: Program, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "1", make_image(1))
    manifest = get_manifest(registry.url, "app", "1")
    blob = run_with_input(program, b"content", "blob", "push", "-", f"{registry.host}/app")
    pushed = run_with_input(program, manifest, "manifest", "push", "-", f"{registry.host}/app:2")

    assert json.loads(blob.stdout)["digest"] == digest_of(b"content")
    assert get_blob(registry.url, "app", digest_of(b"content")) == b"content"
    assert pushed.stdout.decode() == f"{registry.host}/app@{digest_of(manifest)}\n"
    assert get_manifest(registry.url, "app", "2") == manifest


def test_empty_standard_input_is_refused(program: Program, registry: EmbeddedRegistry) -> None:
    result = run_with_input(program, b"", "push", "-", f"{registry.host}/dump:1")

    assert result.returncode == 2
    assert b"empty" in result.stderr


def test_files_are_attached_and_listed(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path
) -> None:
    del here
    put_image(registry.url, "app", "1", make_image(1))
    address = f"{registry.host}/app:1"
    assert "nothing refers" in cli_here("referrers", address).err
    attached = cli_here("attach", "config.json", "--to", address, "--artifact-type", TYPE)
    digest = attached.out.strip().partition("@")[2]

    table = cli_here("referrers", address)
    listed = json.loads(cli_here("referrers", address, "--format=json").out)
    other = json.loads(
        cli_here("referrers", address, "--format=json", "--artifact-type=application/other").out
    )
    assert table.lines[0].split() == ["DIGEST", "ARTIFACT", "TYPE", "CREATED"]
    assert table.lines[1].startswith(f"{digest}  {TYPE}  20")
    assert [(entry["digest"], entry["artifactType"]) for entry in listed] == [(digest, TYPE)]
    assert other == []
    assert cli_here("pull", f"{registry.host}/app@{digest}", "-o", "out").code == 0


def test_manifest_is_pushed_from_a_file(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    image = make_image(1)
    put_image(registry.url, "app", "1", image)
    (tmp_path / "manifest.json").write_bytes(cli_here("manifest", f"{registry.host}/app:1").raw)

    result = cli_here("manifest", "push", "manifest.json", f"{registry.host}/app:2")

    assert result.lines == [f"{registry.host}/app@{image.digest}"]
    assert_same_image(registry.url, "app", "2", image)


def test_blob_is_mounted_and_deleted(cli: Cli, registry: EmbeddedRegistry) -> None:
    put_blob(registry.url, "app", b"content")
    digest = digest_of(b"content")

    mounted = cli("blob", "mount", f"{registry.host}/app@{digest}", f"{registry.host}/other")
    deleted = cli("blob", "delete", f"{registry.host}/other@{digest}")

    assert json.loads(mounted.out)["digest"] == digest
    assert deleted.lines == [f"{registry.host}/other@{digest}"]
    assert cli("blob", "head", f"{registry.host}/other@{digest}").code == 4
    assert cli("blob", "head", f"{registry.host}/app@{digest}").code == 0
    assert_fails(cli("blob", "delete", f"{registry.host}/other@{digest}"), 4, "does not exist")


BAD = [
    (["push"], "write: concil push"),
    (["push", "HOST/a:1"], "write: concil push"),
    (["push", "HOST/a:1", "config.json"], "the destination comes last"),
    (["push", "missing", "HOST/a:1"], "no such file: 'missing'"),
    (["push", "config.json:nothing", "HOST/a:1"], "not a media type"),
    (["push", ":text/plain", "HOST/a:1"], "has no path"),
    (["push", "config.json", "--media-type=x", "HOST/a:1"], "media type"),
    (["push", "config.json", "--artifact-type=x y", "HOST/a:1"], "artifact type"),
    (["push", "config.json", "--annotation=x", "HOST/a:1"], "KEY=VALUE"),
    (["push", "config.json", "--annotation==x", "HOST/a:1"], "KEY=VALUE"),
    (["push", "config.json", "--annotation=x=1", "--annotation=x=2", "HOST/a:1"], "twice"),
    (["push", "config.json", "./config.json", "HOST/a:1"], "two files have the title"),
    (["push", "config.json", "model", "--title=x", "HOST/a:1"], "--title"),
    (["push", "config.json", "--title=../x", "HOST/a:1"], "leads out"),
    (["push", "config.json", "--title=a\\b", "HOST/a:1"], "backslash"),
    (["push", "-", "-", "HOST/a:1"], "twice"),
    (["push", "config.json", f"HOST/a@sha256:{64 * 'a'}"], "give a tag"),
    (["push", "config.json", "docker-archive:x.tar:y"], "docker-archive"),
    (["push", "config.json", "--nonsense", "HOST/a:1"], "--nonsense"),
    (["pull", "HOST/a:1", "-o", ""], "-o DIR"),
    (["attach", "--to=HOST/app:1", "--artifact-type=a/b"], "attach needs files"),
    (["attach", "config.json", "--to=HOST/app:1"], "--artifact-type"),
    (["attach", "config.json", "--artifact-type=a/b"], "--to"),
    (["attach", "config.json", "--to=HOST/app:1", "--artifact-type=a"], "artifact type"),
    (["manifest"], "manifest needs one image"),
    (["manifest", "HOST/a:1", "HOST/a:2"], "manifest needs one image"),
    (["manifest", "push", "missing", "HOST/a:1"], "no such file"),
    (["manifest", "push", "config.json", "HOST/a:1", "--platform=linux/amd64"], "--platform"),
    (["blob", "mount", "HOST/a:1", "HOST/b"], "has no digest"),
    (["blob", "mount", f"HOST/a@sha256:{64 * 'a'}", "localhost:1/b"], "two registries"),
    (["blob", "delete", "HOST/a:1"], "has no digest"),
    (["blob", "delete", f"oci:x@sha256:{64 * 'a'}"], "is not a registry"),
]


@pytest.mark.parametrize(("words", "part"), BAD, ids=lambda value: str(value)[:60])
def test_nonsense_is_answered_with_a_sentence(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path, words: list[str], part: str
) -> None:
    del here
    result = cli_here(*[word.replace("HOST", registry.host) for word in words])

    assert_fails(result, 2, part)


def test_missing_artifact_and_image(cli_here: Cli, registry: EmbeddedRegistry, here: Path) -> None:
    address = f"{registry.host}/none:1"
    attach = ("attach", "config.json", "--to", address, "--artifact-type", TYPE)

    for words in (("pull", address, "-o", "out"), ("referrers", address), attach):
        assert cli_here(*words).code == 4
    assert not (here / "out").exists()


@pytest.mark.real
def test_the_python_client_of_oras_pulls_what_concil_pushes_and_the_reverse(
    cli_here: Cli, docker_registry: DockerRegistry, here: Path
) -> None:
    client = oras.client.OrasClient(hostname=docker_registry.host, insecure=True)
    names = [f"{docker_registry.host}/oras-py/{name}:1" for name in ("concil", "oras")]
    (here / "weights.bin").write_bytes(make_blob(1, 3_000_000))
    files = ["weights.bin", "config.json:application/json"]
    assert cli_here("push", *files, names[0]).code == 0
    client.push(names[1], files=files, disable_path_validation=True, quiet=True)
    client.pull(names[0], outdir=str(here / "pulled-by-oras"))
    assert cli_here("pull", names[1], "-o", "pulled-by-concil").code == 0

    for name in ("pulled-by-oras", "pulled-by-concil"):
        for file in ("weights.bin", "config.json"):
            assert (here / name / file).read_bytes() == (here / file).read_bytes()


@pytest.mark.real
@pytest.mark.skipif(ORAS is None, reason="Debian has no package of the program oras")
def test_oras_pulls_what_concil_pushes_and_the_reverse(
    cli_here: Cli, docker_registry: DockerRegistry, here: Path
) -> None:
    assert ORAS is not None
    (here / "pushed").mkdir()
    names = [f"{docker_registry.host}/oras/{name}:1" for name in ("concil", "oras")]
    assert cli_here("push", "model", "config.json:application/json", names[0]).code == 0
    for words in (
        ["push", "--plain-http", names[1], "model", "config.json:application/json"],
        ["pull", "--plain-http", names[0], "-o", "pulled-by-oras"],
    ):
        subprocess.run([ORAS, *words], cwd=here, check=True, timeout=PATIENCE)
    assert cli_here("pull", names[1], "-o", "pulled-by-concil").code == 0

    for name in ("pulled-by-oras", "pulled-by-concil"):
        assert (here / name / "config.json").read_bytes() == b"{}\n"
        found, made = tree_of(here / name / "model"), tree_of(here / "model")
        # oras does not keep the times of directories.
        assert {path: entry[:3] for path, entry in found.items()} == {
            path: entry[:3] for path, entry in made.items()
        }


ANNOTATIONS = {
    "$config": {"c": "of the config"},
    "$manifest": {"org.opencontainers.image.created": "2026-01-31T12:00:00Z", "m": "a <b>"},
    "config.json": {"f": "of the file"},
}


def test_config_and_annotation_file_are_in_the_manifest(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path
) -> None:
    (here / "annotations.json").write_text(json.dumps(ANNOTATIONS))
    (here / "c.json").write_bytes(b"[1]")
    words = ("--config=c.json:application/vnd.c+json", "--annotation-file=annotations.json")

    result = cli_here("push", *words, "config.json", "with:colon", f"{registry.host}/a:1")

    assert result.code == 0, result.err
    document = json.loads(get_manifest(registry.url, "a", "1"))
    assert "artifactType" not in document
    assert document["config"] == {
        "mediaType": "application/vnd.c+json",
        "digest": digest_of(b"[1]"),
        "size": 3,
        "annotations": ANNOTATIONS["$config"],
    }
    assert get_blob(registry.url, "a", digest_of(b"[1]")) == b"[1]"
    assert document["annotations"] == ANNOTATIONS["$manifest"]
    titles = "org.opencontainers.image.title"
    assert [layer["annotations"] for layer in document["layers"]] == [
        {"f": "of the file", titles: "config.json"},
        {titles: "with:colon"},
    ]


def test_a_config_needs_no_files(cli_here: Cli, registry: EmbeddedRegistry, here: Path) -> None:
    del here
    result = cli_here("push", "--config=config.json", f"{registry.host}/a:1")

    assert result.code == 0, result.err
    document = json.loads(get_manifest(registry.url, "a", "1"))
    assert document["config"]["mediaType"] == "application/vnd.unknown.config.v1+json"
    assert document["layers"] == []


def test_annotations_of_no_file_are_pointed_out(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path
) -> None:
    (here / "annotations.json").write_text('{"confog.json": {"a": "b"}}')
    words = ("--annotation-file=annotations.json", "config.json", f"{registry.host}/a:1")

    result = cli_here("push", *words)

    assert result.code == 0
    assert "not used: 'confog.json'; did you mean config.json?" in result.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--annotation-file=gone.json",), 1, "gone.json"),
        (("--annotation-file=with:colon",), 2, "with:colon: not JSON"),
        (("--annotation-file=list.json",), 2, "list.json is not an annotation file"),
        (("--annotation-file=number.json",), 2, "'$manifest': not an object"),
        (("--annotation-file=value.json",), 2, "'$manifest': not an annotation: 'a'"),
        (("--annotation-file=twice.json",), 2, "twice.json"),
        (("--annotation-file=ok.json", "--annotation=a=b"), 2, "exclude each other"),
        (("--config=gone.json",), 2, "gone.json"),
        (("--config=model",), 2, "is a directory"),
        (("--config=-",), 2, "cannot be standard input"),
        (("--config=config.json:nonsense",), 2, "not a media type"),
    ],
)
def test_configs_and_annotations_that_make_no_sense(  # noqa: PLR0917  # fixtures
    cli_here: Cli,
    registry: EmbeddedRegistry,
    here: Path,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    for name, text in (
        ("list", "[]"),
        ("number", '{"$manifest": 3}'),
        ("value", '{"$manifest": {"a": 3}}'),
        ("twice", '{"a": {}, "a": {}}'),
        ("ok", "{}"),
    ):
        (here / f"{name}.json").write_text(text)

    assert_fails(cli_here("push", *words, "config.json", f"{registry.host}/a:1"), code, message)
    assert requests.get(f"{registry.url}/v2/a/tags/list", timeout=PATIENCE).status_code == 404


def test_an_index_of_artifacts_names_its_platforms(
    cli_here: Cli, registry: EmbeddedRegistry, here: Path
) -> None:
    config_type = "application/vnd.oci.image.config.v1+json"
    entries = []
    for name in ("amd64", "arm64"):
        platform = {"architecture": name, "os": "linux"}
        (here / "platform.json").write_text(json.dumps(platform))
        words = (f"--config=platform.json:{config_type}", "config.json")
        pushed = cli_here("push", *words, f"{registry.host}/a:{name}", "--format=json")
        document = json.loads(pushed.out)
        entries.append({k: document[k] for k in ("mediaType", "digest", "size")})
        entries[-1]["platform"] = platform
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    }
    (here / "index.json").write_text(json.dumps(index))
    assert cli_here("manifest", "push", "index.json", f"{registry.host}/a:all").code == 0
    address = f"{registry.host}/a:all"

    refused = cli_here("pull", address, "-o", "none")
    pulled = cli_here("pull", "--platform=linux/arm64", address, "-o", "out")
    single = cli_here("pull", "--platform=linux/amd64", f"{registry.host}/a:amd64", "-o", "one")
    other = cli_here("pull", "--platform=linux/arm64", f"{registry.host}/a:amd64", "-o", "none")

    platforms = "an index of 2 artifacts, for linux/amd64, linux/arm64; "
    assert_fails(refused, 1, platforms, "--platform")
    assert pulled.code == single.code == 0
    assert pulled.lines == ["out/config.json"]
    assert_fails(other, 4, "linux/arm64")
    assert not (here / "none").exists()
