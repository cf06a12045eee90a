"""Whatever copies an image verifies it: several destinations, repairs, and lists of a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil import MirrorItem, Plan, TrustPolicy
from concil.engine.engine import Engine
from concil.errors import UntrustedImage
from concil.progress.events import State
from concil.server import EmbeddedRegistry
from concil.transfer.findings import Condition
from tests.engine.engine_setup import QUICK, engine_of
from tests.support.images import Image, assert_same_image, get_manifest, make_image, put_image
from tests.support.referrers import digest_tag, put_referrer
from tests.support.signatures import (
    make_bundle,
    make_bundle_referrer,
    make_key,
    make_simple_signature,
    make_statement,
    write_public_key,
)

KEY = make_key()
SIGNED, UNSIGNED = make_image(1), make_image(2)


@pytest.fixture
def policy(tmp_path: Path) -> TrustPolicy:
    return TrustPolicy.from_keys([write_public_key(tmp_path / "cosign.pub", KEY)])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "source") as registry:
        put_image(registry.url, "signed", "v1", SIGNED)
        tag = digest_tag(SIGNED, ".sig")
        put_image(registry.url, "signed", tag, make_simple_signature(KEY, SIGNED))
        bundle = make_bundle(KEY, make_statement(SIGNED.digest))
        put_referrer(registry.url, "signed", make_bundle_referrer(SIGNED, bundle))
        put_image(registry.url, "unsigned", "v1", UNSIGNED)
        yield registry


@pytest.mark.parametrize("referrers", [False, True])
def test_several_destinations_get_only_what_is_signed(
    engine: Engine,
    source: EmbeddedRegistry,
    embedded: EmbeddedRegistry,
    policy: TrustPolicy,
    tmp_path: Path,
    *,
    referrers: bool,
) -> None:
    layout = f"oci:{tmp_path / 'layout'}"

    for name in ("signed", "unsigned"):
        destinations = [f"{embedded.url}/{name}:v1", f"{layout}:{name}"]
        outcomes = engine.copy_to(
            f"{source.url}/{name}:v1", destinations, referrers=referrers, verifier=policy
        )
        errors = [type(outcome.error) for outcome in outcomes if outcome.error is not None]
        assert errors == ([UntrustedImage] * 2 if name == "unsigned" else [])

    assert_same_image(embedded.url, "signed", "v1", SIGNED)
    assert list(engine.list_tags(layout)).count("unsigned") == 0
    # What was copied with its signatures can be verified where it is, by another run.
    item = MirrorItem(f"{layout}:signed", f"{embedded.url}/again:v1", verifier=policy)
    with engine_of(QUICK) as other:
        copied = other.mirror([item])
    assert (copied.copied_count, len(copied.failed)) == ((1, 0) if referrers else (0, 1))


def test_a_repair_copies_only_what_is_signed(
    engine: Engine, source: EmbeddedRegistry, embedded: EmbeddedRegistry, policy: TrustPolicy
) -> None:
    items = [
        MirrorItem(f"{source.url}/{name}:v1", f"{embedded.url}/{name}:v1", verifier=policy)
        for name in ("signed", "unsigned")
    ]

    report = engine.check(items, repair=True)

    conditions = [outcome.result.condition for outcome in report.outcomes if outcome.result]
    assert sorted(conditions, key=str) == [Condition.MISSING, Condition.OK]
    (refused,) = report.pending
    assert "no signature was found" in refused.findings[0].remedy
    assert_same_image(embedded.url, "signed", "v1", SIGNED)


def test_a_repair_replaces_no_blob_of_what_is_not_signed(
    engine: Engine, source: EmbeddedRegistry, policy: TrustPolicy, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    items = [
        MirrorItem(f"{source.url}/{name}:v1", f"oci:{layout}:{name}")
        for name in ("signed", "unsigned")
    ]
    engine.mirror(items)
    files = [layout / "blobs" / next(iter(i.blobs)).replace(":", "/") for i in (SIGNED, UNSIGNED)]
    for file in files:
        file.write_bytes(b"x" * file.stat().st_size)

    verified = [replace(item, verifier=policy) for item in items]
    report = engine.check(verified, deep=True, repair=True)

    (refused,) = report.pending
    assert "no signature was found" in refused.findings[0].remedy
    assert [file.read_bytes().strip(b"x") == b"" for file in files] == [False, True]


def test_a_plan_read_by_a_program_verifies(
    engine: Engine,
    source: EmbeddedRegistry,
    embedded: EmbeddedRegistry,
    policy: TrustPolicy,
    tmp_path: Path,
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'[[mirror]]\nsource = "{source.url}/signed:v1"\nverify = {{ key = "cosign.pub" }}\n'
        f'[[mirror]]\nsource = "{source.url}/unsigned:v1"\n'
    )

    for verifier, copied in ((policy, 1), (None, 2)):
        items = list(Plan.read(plan).items(engine, f"{embedded.url}/m{copied}", verifier=verifier))
        assert engine.mirror(items).copied_count == copied
        assert items[0].verifier == policy


def test_a_dry_run_writes_no_record(
    engine: Engine, source: EmbeddedRegistry, embedded: EmbeddedRegistry, policy: TrustPolicy
) -> None:
    item = MirrorItem(f"{source.url}/unsigned:v1", f"{embedded.url}/unsigned:v1")
    signed = MirrorItem(f"{source.url}/signed:v1", f"{embedded.url}/signed:v1")

    items = [replace(each, verifier=policy) for each in (item, signed)]
    report = engine.mirror(items, dry_run=True)

    assert [type(outcome.error) for outcome in report.failed] == [UntrustedImage]
    assert [result.state for result in report.pending] == [State.WAITING]


def test_files_are_pulled_only_if_they_are_signed(
    engine: Engine, embedded: EmbeddedRegistry, policy: TrustPolicy, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    pushed = engine.push_files([tmp_path / "model"], f"{embedded.url}/models/a:1")
    output = tmp_path / "output"

    with pytest.raises(UntrustedImage, match="cannot verify"):
        engine.pull_files(f"{embedded.url}/models/a:1", output, verifier=policy)
    assert not output.exists()
    content = get_manifest(embedded.url, "models/a", str(pushed.descriptor.digest))
    artifact = Image(pushed.descriptor.media_type, content)
    signature = make_simple_signature(KEY, artifact)
    put_image(embedded.url, "models/a", digest_tag(artifact, ".sig"), signature)
    engine.pull_files(f"{embedded.url}/models/a:1", output, verifier=policy)

    assert (output / "model").read_bytes() == b"weights"


def test_a_verifier_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="verifier must be a TrustPolicy, not str"):
        MirrorItem("h.example/a:1", "h.example/b:1", verifier="cosign.pub")  # type: ignore[arg-type]
