"""Headers of a tar archive that a stranger packed."""

from __future__ import annotations

import io
import struct
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.errors import NotFound, StoreError
from concil.store.archive import tar_headers
from concil.store.archive.tar_headers import TarMembers
from tests.support.archives import Member, link, member
from tests.support.layouts import has_message

LONG = "directory/" * 20 + "name"


def members_of(content: bytes) -> TarMembers:
    return TarMembers(lambda offset, size: content[offset : offset + size], len(content), "archive")


def packed(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return file.getvalue()


def bytes_of(content: bytes, name: str) -> bytes | None:
    found = members_of(content).find(name)
    return None if found is None else content[found.offset : found.offset + found.size]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_format_are_found_where_they_are(form: int) -> None:
    content = packed(member("a", b"first"), member("b/c", b"x" * 513), member("d"), form=form)

    assert members_of(content).names() == ["a", "b/c", "d"]
    assert bytes_of(content, "a") == b"first"
    assert bytes_of(content, "b/c") == b"x" * 513
    assert bytes_of(content, "d") == b""


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_long_links_are_read(form: int) -> None:
    content = packed(member(LONG, b"far"), link("short", LONG, tarfile.LNKTYPE), form=form)

    assert bytes_of(content, LONG) == b"far"
    assert bytes_of(content, "short") == b"far"


def test_sizes_beyond_eight_gigabytes_are_read() -> None:
    header, _ = member("large")
    header.size = 9 * 1024**3
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        start = header.tobuf(form)

        found = TarMembers(
            lambda offset, size, start=start: start[offset : offset + size],  # type: ignore[misc]
            len(start) + header.size,
            "archive",
        ).find("large")

        assert found is not None
        assert (found.offset, found.size) == (len(start), header.size)


def test_dot_slash_in_front_says_nothing() -> None:
    content = packed(member("./", kind=tarfile.DIRTYPE), member("./blobs//a", b"1"))

    assert bytes_of(content, "blobs/a") == b"1"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up"])
def test_names_that_lead_out_are_not_kept(name: str) -> None:
    assert members_of(packed(member(name, b"x"), member("in", b"y"))).names() == ["in"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../etc/passwd", "../..", "", "../../../b/layer.tar"]
)
def test_links_that_lead_out_are_not_followed(target: str) -> None:
    content = packed(link("a/layer.tar", target), member("etc/passwd", b"inside"))

    assert bytes_of(content, "a/layer.tar") is None


def test_links_are_followed_within_the_archive() -> None:
    content = packed(
        link("b/layer.tar", "../a/layer.tar"),
        member("a/layer.tar", b"layer"),
        link("c/layer.tar", "../b/layer.tar"),
        link("hard", "a/layer.tar", tarfile.LNKTYPE),
        link("lost", "nowhere"),
    )

    for name in ("a/layer.tar", "b/layer.tar", "c/layer.tar", "hard"):
        assert bytes_of(content, name) == b"layer"
    assert bytes_of(content, "lost") is None


def test_links_in_a_circle_are_an_error() -> None:
    found = members_of(packed(link("a", "b"), link("b", "a")))

    with pytest.raises(StoreError) as excinfo:
        found.find("a")
    assert has_message(excinfo.value, "a loop of links")


def test_duplicate_name_is_refused() -> None:
    found = members_of(packed(member("a", b"1"), member("a", b"2"), member("b", b"3")))

    assert found.find("b") is not None
    with pytest.raises(StoreError) as excinfo:
        found.find("a")
    assert has_message(excinfo.value, "several members 'a'")


def test_devices_and_pipes_are_left_out() -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)

    assert members_of(packed(*(member("x", kind=kind) for kind in kinds))).names() == []


def test_missing_member_is_not_found() -> None:
    with pytest.raises(NotFound) as excinfo:
        members_of(packed(member("a"))).get("b")
    assert has_message(excinfo.value, "'b'")


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_sparse_members_are_refused(kind: str) -> None:
    header, _ = member("holes")
    if kind == "gnu":
        header.type = tarfile.GNUTYPE_SPARSE
    else:
        header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "holes"}

    with pytest.raises(StoreError) as excinfo:
        members_of(packed((header, b"")))
    assert has_message(excinfo.value, "sparse", "'holes'")


@pytest.mark.parametrize("key", ["path", "size", "linkpath"])
def test_global_header_that_sets_a_name_or_size_is_refused(key: str) -> None:
    content = tarfile.TarInfo.create_pax_global_header({key: "7"})

    with pytest.raises(StoreError, match=f"sets the {key} of all members"):
        members_of(content + packed(member("a")))


def test_global_comments_are_passed_over() -> None:
    content = tarfile.TarInfo.create_pax_global_header({"comment": "hello"})

    assert members_of(content + packed(member("a"))).names() == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"x", "not a tar archive"),
        (b"x" * 2000, "not a tar archive"),
        (packed(member("a", b"x" * 600))[:900], "truncated"),
        (packed(member("a"), member("b", b"x"))[:700], "truncated"),
        (packed(member("a")) [:512] + b"\1" * 512, "damaged at byte 512"),
        (packed(member(LONG), form=tarfile.GNU_FORMAT)[:1024], "truncated"),
    ],
)  # fmt: skip
def test_invalid_archive_is_an_error_in_one_line(content: bytes, words: str) -> None:
    with pytest.raises(StoreError) as excinfo:
        members_of(content)
    assert has_message(excinfo.value, words)


def checksummed(block: bytearray) -> bytes:
    """Give a header the sum that belongs to it."""
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def test_negative_sizes_are_refused() -> None:
    block = bytearray(packed(member("a"))[:512])
    block[124:136] = b"\xff" * 4 + struct.pack(">q", -512)

    with pytest.raises(StoreError) as excinfo:
        members_of(checksummed(block) + bytes(1024))
    assert has_message(excinfo.value, "-512 bytes")


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=a\n",
        b"x path=a\n",
        b"9 path=aa",
        b"7 path\n",
        b"0 a=b\n",
        b"20 size=-0000000007\n",
    ],
)
def test_damaged_pax_headers_are_refused(records: bytes) -> None:
    extra = member("x", records, kind=tarfile.XHDTYPE)

    with pytest.raises(StoreError) as excinfo:
        members_of(packed(extra, member("a"), form=tarfile.USTAR_FORMAT))
    assert has_message(excinfo.value, "archive has a")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_large_headers_are_refused_before_they_are_read(kind: bytes) -> None:
    header, _ = member("x", kind=kind)
    header.size = 10**9
    start = header.tobuf(tarfile.GNU_FORMAT)

    def read(offset: int, size: int) -> bytes:
        assert size <= 512
        return start[offset : offset + size]

    with pytest.raises(StoreError, match="header of 1000000000 bytes"):
        TarMembers(read, 2 * 10**9, "archive")


def test_number_of_members_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_headers, "MAX_MEMBERS", 3)

    members_of(packed(*(member(str(n)) for n in range(3))))
    with pytest.raises(StoreError, match="more than 3 members"):
        members_of(packed(*(member(str(n)) for n in range(4))))


def test_names_have_a_most_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_headers, "MAX_NAME_CHARACTERS", 1000)
    content = packed(*(member(f"{'n' * 400}{number}") for number in range(3)))

    with pytest.raises(StoreError, match="more than 1000 characters"):
        members_of(content)


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(0, 4095), st.binary(min_size=1, max_size=40))
def test_damage_anywhere_is_an_error_or_harmless(layout_path: int, damage: bytes) -> None:
    content = bytearray(
        packed(member(LONG, b"1" * 600), link("b", "c"), member("c", b"2"), form=tarfile.PAX_FORMAT)
    )
    content[layout_path : layout_path + len(damage)] = damage

    try:
        found = members_of(bytes(content))
        for name in found.names():
            one = found.find(name)
            assert one is None or 0 <= one.offset <= one.offset + one.size <= len(content)
    except StoreError:
        pass
