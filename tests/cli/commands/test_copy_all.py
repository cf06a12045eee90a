"""`concil copy --all`: out of a layout or archive, and from repository to repository."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails, assert_one_line
from tests.support.images import (
    Image,
    assert_same_image,
    get_manifest,
    make_image,
    make_index,
    put_image,
    write_layout,
)
from tests.support.referrers import (
    digest_tag,
    list_referrers,
    make_cosign_artifact,
    make_referrer,
    put_referrer,
)


def images() -> dict[str, Image]:
    """Images by the names that a mirror gives them."""
    pinned = make_image(5)
    return {
        "docker.io/library/alpine:3": make_index([make_image(1), make_image(2)]),
        "docker.io/library/alpine:4": make_image(3),
        "quay.io/team/app:v1": make_image(4),
        f"ghcr.io/team/tool:sha256-{pinned.digest[7:]}": pinned,
        # The tag of a list of signatures: it says of what, not what it is.
        f"ghcr.io/team/signed:sha256-{'ab' * 32}": make_image(6),
    }


@pytest.fixture
def layout(tmp_path: Path) -> str:
    write_layout(tmp_path / "carried", images())
    return f"oci:{tmp_path}/carried"


TARGETS = {
    "docker.io/library/alpine:3": "library/alpine:3",
    "docker.io/library/alpine:4": "library/alpine:4",
    "quay.io/team/app:v1": "team/app:v1",
    f"ghcr.io/team/signed:sha256-{'ab' * 32}": f"team/signed:sha256-{'ab' * 32}",
}


@pytest.fixture(params=["oci", "oci-archive"])
def carried(request: pytest.FixtureRequest, cli: Cli, layout: str, tmp_path: Path) -> str:
    """Return a layout, and one in an archive."""
    if request.param == "oci":
        return layout
    assert cli("copy", "--all", layout, f"oci-archive:{tmp_path}/carried.tar").code == 0
    return f"oci-archive:{tmp_path}/carried.tar"


def test_names_are_those_that_a_mirror_gives(
    cli: Cli, carried: str, registry: EmbeddedRegistry, jobs: str
) -> None:
    source = carried
    known = images()
    pinned = make_image(5)

    result = cli("copy", "--all", jobs, source, f"{registry.host}/prefix")

    assert result.code == 0
    wanted = [
        f"{registry.host}/prefix/{target}@{known[name].digest}" for name, target in TARGETS.items()
    ]
    wanted.append(f"{registry.host}/prefix/team/tool@{pinned.digest}")
    assert sorted(result.lines) == sorted(wanted)
    for name, target in TARGETS.items():
        repository, _, tag = target.rpartition(":")
        found = get_manifest(registry.url, f"prefix/{repository}", tag)
        assert found == known[name].manifest
    assert get_manifest(registry.url, "prefix/team/tool", pinned.digest) == pinned.manifest
    assert "5 copied" in result.err

    again = cli("copy", "--all", jobs, source, f"{registry.host}/prefix")
    assert again.lines == result.lines
    assert "0 copied, 5 up to date" in again.err


def test_what_was_mirrored_into_a_layout_comes_out_on_the_other_side(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    image = make_image(1)
    put_image(registry.url, "team/app", "v1", image)
    (tmp_path / "list").write_text(
        f"{registry.host}/team/app:v1\n{registry.host}/team/app@{image.digest}\n"
    )
    assert cli("mirror", jobs, tmp_path / "list", f"oci:{tmp_path}/carried").code == 0

    result = cli("copy", "--all", jobs, f"oci:{tmp_path}/carried", f"{registry.host}/inside")

    assert sorted(result.lines) == [
        f"{registry.host}/inside/team/app:v1@{image.digest}",
        f"{registry.host}/inside/team/app@{image.digest}",
    ]


def test_names_of_no_repository_fail_alone(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    write_layout(tmp_path / "in", {"v1": make_image(1), "quay.io/team/app:v1": make_image(2)})

    result = cli("copy", "--all", "-q", jobs, f"oci:{tmp_path}/in", f"{registry.host}/prefix")

    assert result.code == 3
    assert len(result.lines) == 1
    assert_one_line(result.err, f"{tmp_path}/in:v1", "does not name a repository")


def test_one_image_that_fails_leaves_the_others_alone(
    cli: Cli, layout: str, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    broken = make_image(3)
    blob = next(iter(broken.all_blobs())).replace(":", "/")
    (tmp_path / "carried" / "blobs" / blob).unlink()

    result = cli("copy", "--all", "-q", jobs, layout, f"{registry.host}/prefix")

    assert result.code == 3
    assert len(result.lines) == 4
    assert_one_line(result.err, "docker.io/library/alpine:4", blob.partition("/")[2])


def test_two_names_for_one_target_are_an_error_before_the_first_copy(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    names = ("docker.io/team/app:1", "quay.io/team/app:1")
    write_layout(tmp_path / "in", {name: make_image(n) for n, name in enumerate(names)})

    result = cli("copy", "--all", f"oci:{tmp_path}/in", f"{registry.host}/prefix")

    assert_fails(result, 2, *names, "prefix/team/app:1")
    assert cli("tags", f"{registry.host}/prefix/team/app").code == 4


def test_images_without_a_name_print_a_warning(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    write_layout(tmp_path / "in", {"quay.io/team/app:1": make_image(1)})
    cli("copy", jobs, f"oci:{tmp_path}/in", f"oci:{tmp_path}/more")

    nothing = cli("copy", "--all", jobs, f"oci:{tmp_path}/more", f"{registry.host}/prefix")
    cli("copy", jobs, f"oci:{tmp_path}/in", f"oci:{tmp_path}/more:quay.io/team/other:1")
    write_layout(tmp_path / "third", {"x": make_image(3)})
    cli("copy", jobs, f"oci:{tmp_path}/third", f"oci:{tmp_path}/more")
    some = cli("copy", "--all", jobs, f"oci:{tmp_path}/more", f"{registry.host}/prefix")

    assert nothing.code == 4
    assert "1 image without a name" in nothing.err
    assert some.code == 0
    assert "1 image without a name" in some.err
    assert len(some.lines) == 1


def test_all_tags_of_a_repository_are_copied_to_another(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    made = {f"v{n}": make_image(n) for n in range(3)}
    for tag, image in made.items():
        put_image(registry.url, "team/app", tag, image)
    source = f"{registry.host}/team/app"

    result = cli("copy", "--all", jobs, source, f"{registry.host}/other/place")
    cli("copy", "--all", jobs, source, f"oci:{tmp_path}/out")

    assert sorted(result.lines) == [
        f"{registry.host}/other/place:{tag}@{image.digest}" for tag, image in made.items()
    ]
    for tag, image in made.items():
        assert get_manifest(registry.url, "other/place", tag) == image.manifest
    assert sorted(cli("tags", f"oci:{tmp_path}/out").lines) == [f"{source}:{tag}" for tag in made]


def test_repository_that_cannot_be_listed_is_an_error(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    result = cli("copy", "--all", "-q", f"{registry.host}/none", f"{registry.host}/other")
    assert_fails(result, 4, f"failed: {registry.host}/none", "404")

    missing = cli("copy", "--all", f"oci:{tmp_path}/none", f"{registry.host}/other")
    assert_fails(missing, 4, "no layout")


@pytest.mark.parametrize(
    "case",
    [
        ("oci:{tmp}/carried:quay.io/team/app:v1", "{host}/prefix", "is a single image"),
        ("{host}/a:v1", "{host}/b", "is a single image"),
        ("{host}/a", "{host}/b:v1", "cannot be copied to a single image"),
        ("oci:{tmp}/carried", "{host}/b:v1", "not a single tag"),
        ("oci:{tmp}/carried", "oci:{tmp}/out:v1", "not a single image"),
        ("oci:{tmp}/carried", "oci:{tmp}/carried", "onto itself"),
        ("{host}/a", "{host}/a", "onto itself"),
    ],
)
@pytest.mark.usefixtures("layout")
def test_invalid_arguments_are_refused_before_the_first_request(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    *places, words = case
    source, target = (one.format(tmp=tmp_path, host=registry.host) for one in places)

    assert_fails(cli("copy", "--all", source, target), 2, words)


def test_signatures_cross_the_gap_with_their_images(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    image = make_image(1)
    signed = make_referrer(image)
    put_image(registry.url, "team/app", "v1", image)
    put_referrer(registry.url, "team/app", signed)
    put_image(registry.url, "team/app", digest_tag(image, ".sig"), make_cosign_artifact())
    (tmp_path / "list").write_text(f"{registry.host}/team/app:v1\n")
    cli("mirror", jobs, "--referrers", tmp_path / "list", f"oci:{tmp_path}/carried")

    result = cli(
        "copy", "--all", "--referrers", jobs, f"oci:{tmp_path}/carried", f"{registry.host}/in"
    )

    assert result.code == 0
    listed = list_referrers(registry.url, "in/team/app", image.digest)
    assert [entry["digest"] for entry in listed] == [signed.digest]
    assert_same_image(
        registry.url, "in/team/app", digest_tag(image, ".sig"), make_cosign_artifact()
    )
    without = cli("copy", "--all", jobs, f"oci:{tmp_path}/carried", f"{registry.host}/out")
    assert "--referrers" in without.err
    assert not list_referrers(registry.url, "out/team/app", image.digest)


def test_foreign_layers_are_treated_as_asked(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    plain = make_image(3)
    document = json.loads(plain.manifest)
    layer = document["layers"][0]
    layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    image = replace(plain, manifest=json.dumps(document).encode())
    write_layout(tmp_path / "in", {"quay.io/team/app:1": image})
    command = "copy", "--all", jobs, f"oci:{tmp_path}/in"

    left = cli(*command, f"{registry.host}/out")
    cli(*command, "--foreign-layers=source", f"{registry.host}/with")

    assert f"concil: note: {registry.host}/out/team/app:1: 1 foreign layer is skipped" in left.err
    assert cli("blob", "head", f"{registry.host}/out/team/app@{layer['digest']}").code == 4
    assert cli("blob", "head", f"{registry.host}/with/team/app@{layer['digest']}").code == 0


# As docker from 25 on, ctr, buildx and regctl write it --------------------------------------


@pytest.fixture(params=["oci", "oci-archive"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return what containerd exports: the full name beside the tag, which two images share."""
    known = {"app": make_image(1), "tool": make_image(2), "pinned": make_image(3)}
    names = {
        known["app"].digest: ("docker.io/library/app:latest", "latest"),
        known["tool"].digest: ("quay.io/team/tool:latest", "latest"),
        known["pinned"].digest: (f"quay.io/team/pinned@{known['pinned'].digest}", None),
    }
    write_layout(tmp_path / "exported", known)
    path = tmp_path / "exported" / "index.json"
    document = json.loads(path.read_text())
    for entry in document["manifests"]:
        full, short = names[entry["digest"]]
        entry["annotations"] = {"io.containerd.image.name": full}
        if short:
            entry["annotations"]["org.opencontainers.image.ref.name"] = short
    path.write_text(json.dumps(document))
    if request.param == "oci":
        return f"oci:{tmp_path}/exported"
    with tarfile.open(tmp_path / "exported.tar", "w") as archive:
        archive.add(tmp_path / "exported", ".")
    return f"oci-archive:{tmp_path}/exported.tar"


def test_full_names_of_containerd_count(
    cli: Cli, exported: str, registry: EmbeddedRegistry, jobs: str
) -> None:
    result = cli("copy", "--all", jobs, exported, f"{registry.host}/in")

    assert result.code == 0, result.err
    assert_same_image(registry.url, "in/library/app", "latest", make_image(1))
    assert_same_image(registry.url, "in/team/tool", "latest", make_image(2))
    pinned = make_image(3)
    assert get_manifest(registry.url, "in/team/pinned", pinned.digest) == pinned.manifest
    assert f"{registry.host}/in/team/pinned@{pinned.digest}" in result.lines


def test_a_plan_takes_full_names_of_containerd(
    cli: Cli, exported: str, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[[mirror]]\nsource = "{exported}"\nmatch = ".*:latest"\n')

    result = cli("mirror", jobs, plan, f"{registry.host}/in")

    assert (result.code, result.messages) == (0, "")
    assert_same_image(registry.url, "in/library/app", "latest", make_image(1))
    assert_same_image(registry.url, "in/team/tool", "latest", make_image(2))


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_full_names_of_containerd_stay_in_another_place(
    cli: Cli, exported: str, tmp_path: Path, jobs: str, kind: str
) -> None:
    target = f"{kind}:{tmp_path}/out"

    result = cli("copy", "--all", jobs, exported, target)

    assert result.code == 0, result.err
    assert sorted(cli("tags", target).lines) == [
        "docker.io/library/app:latest",
        f"quay.io/team/pinned:sha256-{make_image(3).digest[7:]}",
        "quay.io/team/tool:latest",
    ]


def test_one_image_is_found_by_either_of_its_names(
    cli: Cli, exported: str, tmp_path: Path, jobs: str
) -> None:
    place, digest = f"oci:{tmp_path}/out", make_image(2).digest

    assert cli("tags", exported).lines[0] == "docker.io/library/app:latest"
    result = cli("copy", jobs, f"{exported}:quay.io/team/tool:latest", f"{place}:tool")
    assert (result.code, result.lines) == (0, [f"{place}@{digest}"])


def test_name_without_a_repository_is_an_error(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    """It is not passed over like an image without a name."""
    write_layout(tmp_path / "in", {"an odd name": make_image(1)})

    result = cli("copy", "--all", "-q", jobs, f"oci:{tmp_path}/in", f"{registry.host}/prefix")

    assert result.code != 0
    assert "an odd name" in result.err
