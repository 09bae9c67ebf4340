import bz2
import gzip
import io
import lzma
import random
import tarfile

import numpy as np
import pytest

from vitexp.data.shards.layout import BadShard
from vitexp.data.shards.scan import plain_members


def members_of(data: bytes) -> list[tuple[str, int, bytes]]:
    members = plain_members(io.BytesIO(data), "x.tar")
    return [(found.name, found.offset_data, data[found.offset_data :][: found.size]) for found in members]


def tar_of(members: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if form == tarfile.PAX_FORMAT else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_lists_what_the_standard_library_lists(form: int) -> None:
    longest = 90 if form == tarfile.USTAR_FORMAT else 300
    members = [(f"{'k' * n}.png", random.Random(n).randbytes(n * 7)) for n in (1, 73, longest)] + [("ä ü/b.cls", b"1")]
    data = tar_of(members, form)
    found = members_of(data)
    assert [(name, content) for name, _, content in found] == members
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [offset for _, offset, _ in found] == [info.offset_data for info in tar]


def test_names_split_over_the_prefix_field_are_whole() -> None:
    name = "a" * 100 + "/" + "b" * 90 + ".png"
    assert members_of(tar_of([(name, b"x")], tarfile.USTAR_FORMAT))[0][0] == name


def test_the_file_may_be_moved_between_members() -> None:
    file = io.BytesIO(tar_of([("a.png", b"x" * 2000), ("b.png", b"y" * 10)], tarfile.USTAR_FORMAT))
    names = []
    for member in plain_members(file, "x.tar"):
        names.append(member.name)
        file.seek(len(names) * 7)
    assert names == ["a.png", "b.png"]


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 2000, 3071])
def test_a_tar_that_is_cut_off_is_named(cut: int) -> None:
    data = tar_of([("a.png", b"x" * 2000)], tarfile.USTAR_FORMAT)
    with pytest.raises(BadShard, match=r"x\.tar is (cut off at byte|no whole, uncompressed tar)"):
        members_of(data[:cut])


def test_garbage_is_no_tar() -> None:
    with pytest.raises(BadShard, match="is no whole, uncompressed tar"):
        members_of(random.Random(0).randbytes(4096))


def test_a_flipped_header_bit_is_noticed() -> None:
    data = bytearray(tar_of([("a.png", b"x"), ("b.png", b"y")], tarfile.USTAR_FORMAT))
    data[1024] ^= 1
    with pytest.raises(BadShard, match="is damaged at byte 1024"):
        members_of(bytes(data))


def header(kind: bytes, name: str = "a.png") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_only_regular_files_are_read(kind: bytes) -> None:
    with pytest.raises(BadShard, match=r"holds 'a\.png', a link or a device"):
        members_of(header(kind))


def test_directories_are_passed_over() -> None:
    assert members_of(header(tarfile.DIRTYPE, "folder/")) == []


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "a/../../b.png", "\\\\host\\a.png", "a\\..\\b.png"])
def test_names_that_leave_the_directory_are_refused(name: str) -> None:
    with pytest.raises(BadShard, match="leaves the directory"):
        members_of(tar_of([(name, b"x")], tarfile.USTAR_FORMAT))


def test_long_names_are_bounded() -> None:
    with pytest.raises(BadShard, match="a name that is too long"):
        members_of(tar_of([("k" * 70_000 + ".png", b"x")], tarfile.GNU_FORMAT))


def test_sizes_in_the_binary_form_are_read() -> None:
    data = bytearray(tar_of([("a.png", b"x" * 600)], tarfile.USTAR_FORMAT))
    data[124:136] = b"\x80" + (600).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert members_of(bytes(data)) == [("a.png", 512, b"x" * 600)]


def test_directories_of_the_oldest_form_are_passed_over() -> None:
    assert members_of(header(tarfile.AREGTYPE, "folder/")) == []


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (bytes(7 * 512 + 3), None),
        (tar_of([("b.png", b"y")], tarfile.USTAR_FORMAT), "goes on after its end, at byte 10240, as after `cat a.tar"),
        (bytes(1 << 21) + b"x", f"goes on after its end, at byte {10240 + (1 << 21)}"),
    ],
)
def test_what_follows_the_end_is_zeros_or_refused(after: bytes, message: str | None) -> None:
    data = tar_of([("a.png", b"x")], tarfile.USTAR_FORMAT) + after
    if message is None:
        assert [name for name, *_ in members_of(data)] == ["a.png"]
    else:
        with pytest.raises(BadShard, match=rf"x\.tar {message}"):
            members_of(data)


def test_a_tar_without_its_end_is_refused() -> None:
    with pytest.raises(BadShard, match="is cut off at byte 1024"):
        members_of(tar_of([("a.png", b"x")], tarfile.USTAR_FORMAT)[:1024])


@pytest.mark.parametrize("size", [b"-0000000001\0", b"\xff" * 12, b"\x80" + b"\xff" * 11])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_sizes_that_lead_back_or_far_away_end_in_an_error(size: bytes, kind: bytes) -> None:
    data = bytearray(tar_of([("a.png", b"x" * 600), ("b.png", b"x" * 600)], tarfile.USTAR_FORMAT))
    data[124:136], data[156:157] = size, kind
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(BadShard, match=r"x\.tar"):
        members_of(bytes(data))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tar_is_refused(pack) -> None:
    with pytest.raises(BadShard, match=r"is no whole, uncompressed tar .*unpack it"):
        members_of(pack(np.random.default_rng(0).bytes(9000)))
