"""Whatever is written comes out again, and what does not compress is stored."""

from __future__ import annotations

import gzip
import random
import tempfile
import zlib

import pytest

from concil.config import MIB
from concil.engine.artifacts.gzip_writer import GzipWriter
from concil.oci.digest import Digest
from tests.support.images import make_blob

TEXT = b"a line that compresses well\n" * (MIB // 28)
NOISE = make_blob(1, MIB)
CONTENTS = {
    "empty": b"",
    "byte": b"x",
    "text": TEXT * 3,
    "noise": NOISE * 3,
    "noise, then text": NOISE + TEXT * 2,
    "text, then noise": TEXT + b"a" * (MIB - len(TEXT)) + NOISE + NOISE,
    "in turns": (NOISE + b"y" * MIB) * 3 + NOISE[:1000],
    "noise and a bit": NOISE + NOISE[:1],
}


def write(content: bytes, sizes: random.Random) -> bytes:
    with tempfile.TemporaryFile(buffering=0) as file:
        writer = GzipWriter(file)
        rest = content
        while rest:
            size = sizes.choice([1, 512, 70_000, MIB, 3 * MIB])
            writer.write(rest[:size])
            rest = rest[size:]
        writer.finish()
        assert writer.plain.digest() == Digest.from_bytes(content)
        file.seek(0)
        written = file.read()
    assert writer.compressed.digest() == Digest.from_bytes(written)
    assert writer.compressed.position == len(written)
    return written


@pytest.mark.parametrize("name", CONTENTS)
def test_content_comes_out_again_and_does_not_depend_on_the_writes(name: str) -> None:
    content = CONTENTS[name]

    written = write(content, random.Random(1))

    assert gzip.decompress(written) == content
    decompressor = zlib.decompressobj(wbits=31)
    assert decompressor.decompress(written) == content
    assert (decompressor.eof, decompressor.unused_data) == (True, b"")
    assert write(content, random.Random(2)) == written


def test_noise_hardly_grows_and_text_shrinks() -> None:
    assert len(write(NOISE, random.Random(1))) < MIB + 200
    assert len(write(TEXT, random.Random(1))) < MIB // 50
