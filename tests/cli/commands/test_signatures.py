"""`--verify-key` and `verify` in plans: signed, unsigned and wrongly signed images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, Program, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    TIMEOUT,
    assert_same_image,
    make_image,
    make_index,
    put_image,
)
from tests.support.notation import certify, make_envelope, make_notation_referrer
from tests.support.notation import make_payload as make_notation_payload
from tests.support.referrers import digest_tag, put_referrer
from tests.support.signatures import (
    make_bundle,
    make_bundle_referrer,
    make_key,
    make_simple_signature,
    make_statement,
    write_public_key,
)
from tests.support.sigstore_instance import IDENTITY, ISSUER, SigstoreInstance

KEY, OTHER_KEY = make_key(), make_key()
OLD = make_image(50)
# One repository each; what is expected of each is in its name.
IMAGES = {
    name: make_image(number)
    for number, name in enumerate(
        ("signed-tag", "signed-bundle", "unsigned", "bad-key", "bad-replay", "bad-payload")
    )
}
SIGNED = ("signed-tag", "signed-bundle")


@dataclass(frozen=True)
class SignedSource:
    """A registry with the images, and the public key."""

    url: str
    key: Path

    def plan(self, path: Path, verify: str, *more: str) -> Path:
        """Write a plan of all images, with equal `verify` lines."""
        entries = [
            f'[[mirror]]\nsource = "{self.url}/team/{name}:v1"\ntarget = "{name}:v1"\n{verify}\n'
            for name in IMAGES
        ]
        path.write_text("\n".join([*entries, *more]))
        return path


def load_images(url: str) -> None:
    """Put the images and their signatures into a registry, as cosign would."""
    for name, image in IMAGES.items():
        put_image(url, f"team/{name}", "v1", image)
    by_tag = {
        "signed-tag": make_simple_signature(KEY, IMAGES["signed-tag"]),
        "bad-key": make_simple_signature(OTHER_KEY, IMAGES["bad-key"]),
        "bad-replay": make_simple_signature(KEY, IMAGES["signed-tag"]),
        "bad-payload": make_simple_signature(KEY, IMAGES["bad-payload"], b"nonsense"),
    }
    for name, signature in by_tag.items():
        put_image(url, f"team/{name}", digest_tag(IMAGES[name], ".sig"), signature)
    image = IMAGES["signed-bundle"]
    bundle = make_bundle(KEY, make_statement(image.digest))
    put_referrer(url, "team/signed-bundle", make_bundle_referrer(image, bundle))


def tags_of(url: str, repository: str) -> list[str]:
    answer = requests.get(f"{url}/v2/{repository}/tags/list", timeout=TIMEOUT)
    return list(answer.json()["tags"] or ()) if answer.ok else []


def assert_only_signed(url: str, prefix: str) -> None:
    """The signed images have arrived, byte for byte; nothing of the others has."""
    for name, image in IMAGES.items():
        if name in SIGNED:
            assert_same_image(url, f"{prefix}/{name}", "v1", image)
        else:
            assert tags_of(url, f"{prefix}/{name}") == []


REASONS = {
    "unsigned": "no signature was found",
    "bad-key": "it is signed by another key, or its signature was changed afterwards",
    "bad-replay": f"its signature is for another digest, '{IMAGES['signed-tag'].digest}'",
    "bad-payload": "the payload of its signature is not JSON",
}


def test_only_signed_images_of_a_plan_arrive(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    load_images(registry.url)
    write_public_key(tmp_path / "cosign.pub", KEY)
    source = SignedSource(registry.url, tmp_path / "cosign.pub")
    plan = source.plan(tmp_path / "plan.toml", 'verify = { key = "cosign.pub" }')
    put_image(registry.url, "mirror/unsigned", "v1", OLD)
    report = tmp_path / "report.json"

    result = cli("mirror", jobs, plan, f"{registry.url}/mirror", "--report", report)

    assert result.code == 3
    assert result.out.startswith("6 images: 2 copied, 0 up to date, 4 failed;")
    for name in SIGNED:
        assert_same_image(registry.url, f"mirror/{name}", "v1", IMAGES[name])
    for name in ("bad-key", "bad-replay", "bad-payload"):
        assert tags_of(registry.url, f"mirror/{name}") == []
    assert_same_image(registry.url, "mirror/unsigned", "v1", OLD)  # stays as it is
    entries = {e["source"].split("/")[-1]: e for e in json.loads(report.read_text())["images"]}
    for name, reason in REASONS.items():
        entry = entries[f"{name}:v1"]
        assert (entry["outcome"], entry["error_type"]) == ("failed", "UntrustedImage")
        assert reason in entry["error"]
        assert IMAGES[name].digest in entry["error"]
        assert reason in result.err


@pytest.mark.parametrize("options", [("--processes", "2"), ("--referrers",)])
def test_other_ways_to_mirror_verify_as_well(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path, options: tuple[str, ...]
) -> None:
    load_images(registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    plan = SignedSource(registry.url, key).plan(tmp_path / "plan.toml", "")

    result = program("mirror", plan, f"{registry.url}/m", "--verify-key", key, *options)

    assert result.code == 3, result.err
    assert result.out.startswith("6 images: 2 copied, 0 up to date, 4 failed;")
    assert_only_signed(registry.url, "m")
    # Whoever mirrors the mirror can verify it again.
    if "--referrers" in options:
        again = program(
            "copy", f"{registry.url}/m/signed-tag:v1", "oci:copy:v1", "--verify-key", key
        )
        assert again.code == 0, again.err


def test_several_destinations_of_a_mirror_get_only_what_is_signed(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    load_images(registry.url)
    write_public_key(tmp_path / "cosign.pub", KEY)
    plan = SignedSource(registry.url, tmp_path).plan(
        tmp_path / "plan.toml", 'verify = { key = "cosign.pub" }'
    )
    with EmbeddedRegistry(tmp_path / "other") as other:
        destinations = ("--dest", f"{registry.url}/m", "--dest", f"{other.url}/m")
        result = cli_here("mirror", jobs, plan, *destinations, "--cache", "oci:cache")

        assert result.code == 3, result.err
        assert_only_signed(registry.url, "m")
        assert_only_signed(other.url, "m")


def test_an_entry_says_whom_it_trusts(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    load_images(registry.url)
    (tmp_path / "keys").mkdir()
    write_public_key(tmp_path / "keys" / "a.pub", KEY)
    other = write_public_key(tmp_path / "other.pub", OTHER_KEY)
    verify = {
        "signed-tag": 'verify = { key = ["keys/a.pub", "other.pub"] }',
        "signed-bundle": 'verify = [{ key = "other.pub" }, { key = "keys/a.pub" }]',
        "unsigned": "verify = false",
        "bad-key": "",  # the key of the command line
        "bad-replay": "",
        "bad-payload": 'verify = { key = "keys/a.pub" }',
    }
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "\n".join(
            f'[[mirror]]\nsource = "{registry.url}/team/{name}"\ntarget = "{name}"\n{line}'
            for name, line in verify.items()
        )
    )

    result = cli("mirror", jobs, plan, f"{registry.url}/m", "--verify-key", other)

    # The tags of signatures are no images of their own where images are verified.
    assert result.out.startswith("6 images: 4 copied, 0 up to date, 2 failed;")
    for name in ("signed-tag", "signed-bundle", "unsigned", "bad-key"):
        assert_same_image(registry.url, f"m/{name}", "v1", IMAGES[name])
        assert tags_of(registry.url, f"m/{name}") == ["v1"]
    assert tags_of(registry.url, "m/bad-replay") == tags_of(registry.url, "m/bad-payload") == []


def test_a_repair_with_a_key_copies_only_what_is_signed(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    load_images(registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    plan = tmp_path / "plan.toml"
    entries = [
        f'[[mirror]]\nsource = "{registry.url}/team/{name}"\ntarget = "{name}"\n' for name in IMAGES
    ]
    plan.write_text("".join(entries))

    words = ("check", plan, f"{registry.url}/m", "--verify-key", key)
    repaired = cli(*words, "--repair")

    assert repaired.code == 6
    assert_only_signed(registry.url, "m")
    # Tags of signatures are no images, as in a mirror.
    assert [tags_of(registry.url, f"m/{name}") for name in SIGNED] == [["v1"]] * 2
    assert ".sig" not in repaired.out + repaired.err
    assert_fails(
        cli("check", f"{registry.url}/m/signed-tag:v1", "--verify-key", key), 2, "there is no plan"
    )


def test_the_second_run_verifies_nothing_again(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    load_images(registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    names = tmp_path / "list"
    names.write_text("".join(f"{registry.url}/team/{name}:v1\n" for name in SIGNED))
    words = ("mirror", jobs, names, f"{registry.url}/m", "--verify-key", key)
    assert cli(*words).code == 0
    registry.clear_requests()

    second = cli(*words)

    assert second.out.startswith("2 images: 0 copied, 2 up to date, 0 failed;")
    requested = [each for each in registry.requests if each.path != "/v2/"]
    assert {each.method for each in requested} == {"HEAD"}
    assert len(requested) == 4  # the tag at both sides


@pytest.mark.parametrize("destination", ["oci:out:v1", "oci-archive:out.tar:v1"])
@pytest.mark.parametrize("by_tag", [True, False])
def test_signatures_are_found_in_layouts_and_archives(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path, destination: str, by_tag: bool
) -> None:
    load_images(registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    name = "signed-tag" if by_tag else "signed-bundle"
    verify = ("--verify-key", key)
    first = cli_here("copy", f"{registry.url}/team/{name}:v1", destination, "--referrers", *verify)
    assert first.code == 0, first.err

    second = cli_here("copy", destination, f"{registry.url}/copied:v1", *verify)
    other = write_public_key(tmp_path / "other.pub", OTHER_KEY)
    third = cli_here("copy", destination, f"{registry.url}/refused:v1", "--verify-key", other)

    assert second.code == 0, second.err
    assert_same_image(registry.url, "copied", "v1", IMAGES[name])
    assert third.code == 7
    assert "signed by another key" in third.err
    assert tags_of(registry.url, "refused") == []


def test_copies_say_why_an_image_is_refused(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    load_images(registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    address = f"{registry.url}/team/unsigned:v1"

    single = cli("copy", address, f"{registry.url}/x:v1", "--verify-key", key)
    several = cli(
        "copy", address, f"{registry.url}/y:v1", f"oci:{tmp_path / 'out'}:v1", "--verify-key", key
    )
    everything = cli(
        "copy", "--all", f"{registry.url}/team/bad-key", f"{registry.url}/z", "--verify-key", key
    )

    assert_fails(single, 7, f"cannot verify {address}: no signature was found")
    assert single.err.rstrip().endswith(
        "; sign the image, or correct the keys and identities that are accepted"
    )
    assert several.code == 7
    assert "no signature was found" in several.err
    assert everything.code == 7
    for name in ("x", "y", "z"):
        assert tags_of(registry.url, name) == []


def test_all_images_are_copied_without_their_signatures_or_with_them(
    cli_here: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    load_images(registry.url)
    verify = ("--verify-key", write_public_key(tmp_path / "cosign.pub", KEY))
    source = f"{registry.url}/team/signed-tag"

    alone = cli_here("copy", "--all", source, f"{registry.url}/alone", *verify)
    layout = cli_here("copy", "--all", source, "oci:layout", "--referrers", *verify)
    back = cli_here("copy", "--all", "oci:layout", f"{registry.url}/back", *verify)

    assert (alone.code, layout.code, back.code) == (0, 0, 0), alone.err + layout.err + back.err
    assert tags_of(registry.url, "alone") == ["v1"]
    assert_same_image(registry.url, "back/team/signed-tag", "v1", IMAGES["signed-tag"])


def test_a_platform_of_a_signed_index_is_copied(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    index = make_index(
        [make_image(n, platform=f"linux/{p}") for n, p in ((7, "amd64"), (8, "arm64"))]
    )
    put_image(registry.url, "multi", "v1", index)
    put_image(registry.url, "multi", digest_tag(index, ".sig"), make_simple_signature(KEY, index))
    key = write_public_key(tmp_path / "cosign.pub", KEY)

    result = cli(
        "copy",
        f"{registry.url}/multi:v1",
        f"{registry.url}/one:v1",
        "--platform=linux/arm64",
        "--verify-key",
        key,
    )

    assert result.code == 0, result.err
    assert_same_image(registry.url, "one", "v1", index.children[1])


def test_an_identity_of_a_plan_or_an_option_accepts_keyless_signatures(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    pytest.importorskip("sigstore")
    load_images(registry.url)
    instance = SigstoreInstance()
    trust_root = instance.write_trust_root(tmp_path / "trusted_root.json")
    image = IMAGES["unsigned"]
    bundle = instance.sign(make_statement(image.digest))
    put_referrer(registry.url, "team/unsigned", make_bundle_referrer(image, bundle))
    verify = (
        f'verify = {{ identity = "{IDENTITY}", issuer = "{ISSUER}", '
        'trust_root = "trusted_root.json" }'
    )
    plan = SignedSource(registry.url, tmp_path).plan(tmp_path / "plan.toml", verify)
    options = ("--verify-issuer", ISSUER, "--trust-root", trust_root)

    result = cli("mirror", jobs, plan, f"{registry.url}/m")
    address = f"{registry.url}/team/unsigned:v1"
    option = cli("copy", address, f"{registry.url}/x:1", "--verify-identity", IDENTITY, *options)
    other = cli(
        "copy", address, f"{registry.url}/y:1", "--verify-identity", "a@b.example", *options
    )

    assert result.out.startswith("6 images: 1 copied, 0 up to date, 5 failed;")
    assert_same_image(registry.url, "m/unsigned", "v1", image)
    assert option.code == 0, option.err
    assert_fails(other, 7, "it is signed by another identity, or of another issuer")


def test_a_certificate_of_a_plan_accepts_signatures_of_notation(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    load_images(registry.url)
    ca = certify(is_ca=True)
    ca.write(tmp_path / "ca.crt")
    image = IMAGES["unsigned"]
    envelope = make_envelope(ca.issue(), make_notation_payload(image.digest))
    put_referrer(registry.url, "team/unsigned", make_notation_referrer(image, envelope))
    plan = SignedSource(registry.url, tmp_path).plan(
        tmp_path / "plan.toml", 'verify = { certificate = "ca.crt" }'
    )

    result = cli("mirror", jobs, plan, f"{registry.url}/m")
    option = cli(
        "copy",
        f"{registry.url}/team/unsigned:v1",
        f"{registry.url}/one:v1",
        "--verify-certificate",
        tmp_path / "ca.crt",
    )

    assert result.out.startswith("6 images: 1 copied, 0 up to date, 5 failed;")
    assert_same_image(registry.url, "m/unsigned", "v1", image)
    assert option.code == 0, option.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "verify = true",
            "plan.toml:3: 'verify': neither false, nor a table of a signer, nor a list",
        ),
        ("verify = []", "neither false, nor a table of a signer, nor a list"),
        ("verify = {}", "neither false, nor a table of a signer, nor a list"),
        ('verify = "cosign.pub"', "neither false, nor a table of a signer, nor a list"),
        ("verify = { key = 1 }", "not the path of a file"),
        ('verify = { keys = "a" }', "unknown field 'keys'; did you mean key?"),
        ('verify = { key = "none.pub" }', "none.pub': No such file or directory"),
        ('verify = { key = "plan.toml" }', "plan.toml' is not a public key"),
        ('verify = { identity = "me" }', "an identity without issuer and trust_root"),
        (
            'verify = { key = "a", identity = "me" }',
            "a signer is either a key, a certificate or an identity",
        ),
        ("[[mirror.verify]]\nkey = 1", "not the path of a file"),
        ("verfy = false", "'verfy': unknown field; did you mean verify?"),
    ],
)
def test_a_plan_that_is_wrong_about_signatures(
    cli: Cli, tmp_path: Path, line: str, message: str
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[[mirror]]\nsource = "h.example/a:1"\n{line}\n')

    result = cli("mirror", plan, "h.example/b")

    assert_fails(result, 2, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--verify-key", "none.pub"), "cannot read 'none.pub': No such file or directory"),
        (("--verify-identity", "me"), "--verify-identity needs --verify-issuer and --trust-root"),
        (("--trust-root", "x"), "--trust-root needs --verify-identity and --verify-issuer"),
    ],
)
def test_options_that_are_wrong_about_signatures(
    cli_here: Cli, words: tuple[str, ...], message: str
) -> None:
    assert_fails(cli_here("copy", "h.example/a:1", "h.example/b:1", *words), 2, message)


@pytest.mark.real
def test_a_real_registry_without_the_referrers_api(
    program: Program, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    """Distribution 2.8 has no referrers API: a bundle is found by the tag that lists referrers."""
    load_images(docker_registry.url)
    key = write_public_key(tmp_path / "cosign.pub", KEY)
    plan = SignedSource(docker_registry.url, key).plan(tmp_path / "plan.toml", "")

    result = program("mirror", plan, f"{docker_registry.url}/verified", "--verify-key", key)

    assert result.code == 3, result.err
    assert_only_signed(docker_registry.url, "verified")
