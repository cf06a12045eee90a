"""Files that are public keys, and files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from concil.errors import UsageError
from concil.trust.policy import TrustPolicy
from concil.trust.public_key import PublicKey
from tests.support.signatures import make_key, public_pem, sign

KEY = make_key()
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
COSIGN_PRIVATE = b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END -----\n"
DSA = dsa.generate_private_key(1024).public_key()
OTHER_CURVE = ec.generate_private_key(ec.SECP224R1()).public_key()
SHORT_RSA = rsa.generate_private_key(65537, 1024).public_key()


def pem_of(key: dsa.DSAPublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"nonsense", "is not a public key"),
        (b"\x00\xff" * 500, "is not a public key"),
        (public_pem(KEY)[:60], "is not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----\n", "is not a public key"),
        (PRIVATE, "this is a private key"),
        (COSIGN_PRIVATE, "this is a private key"),
        (trustme.CA().cert_pem.bytes(), "this is a certificate"),
        (public_pem(KEY) * 2, "there are several keys in one file"),
        (b"x" * 70_000, "is larger than 64 KiB"),
        (pem_of(DSA), "keys of this kind are not supported"),
        (pem_of(OTHER_CURVE), "keys of this kind are not supported"),
        (pem_of(SHORT_RSA), "keys of this kind are not supported"),
    ],
)
def test_a_file_that_is_no_key(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cosign.pub"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"cosign\.pub") as caught:
        TrustPolicy.from_keys([path])

    assert message in str(caught.value)
    assert caught.value.remedy
    assert "PRIVATE KEY-----" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pub", "cannot read .*missing.pub': No such file"),
        (".", "cannot read .*Is a directory"),
        ("a\0b", "cannot read .*: not a valid path"),
        ("awskms:///alias/key", "is not a file: keys are read from files only"),
    ],
)
def test_a_path_that_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match=message):
        TrustPolicy.from_keys([name])


def test_a_policy_without_a_key_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a signer"):
        TrustPolicy.from_keys([])


def test_the_same_key_is_one_policy_however_it_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pub", tmp_path / "b.pub"]
    paths[0].write_bytes(public_pem(KEY))
    paths[1].write_bytes(b"# of the team\n" + public_pem(KEY).replace(b"\n", b"\r\n"))

    assert PublicKey.read(paths[0]) == PublicKey.read(paths[1])
    assert PublicKey.read(paths[1]).has_signed(sign(KEY, b"content"), b"content")
    assert not PublicKey.read(paths[1]).has_signed(sign(KEY, b"content"), b"contents")


def test_without_the_package_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cosign.pub"
    path.write_bytes(public_pem(KEY))
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(UsageError, match="needs the package cryptography") as caught:
        TrustPolicy.from_keys([path])

    assert caught.value.remedy == "type: pip install 'concil[verify]'"
