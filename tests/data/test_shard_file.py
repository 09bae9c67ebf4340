"""A member written here is the member that tarfile would write."""

import io
import tarfile

import numpy as np
import pytest

from vitexp.data.read.decode import BadImage
from vitexp.data.shards.write import encode, write_shard

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def test_a_shard_is_byte_for_byte_what_tarfile_writes(tmp_path):
    samples = [encode(f"key_{i}", 7 * i, PIXELS + i, check=False) for i in range(30)]
    assert write_shard(tmp_path / "a.tar", iter(samples)) == 30
    ours = (tmp_path / "a.tar").read_bytes()
    buffer = io.BytesIO()
    with (
        tarfile.open(tmp_path / "a.tar") as read,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as again,
    ):
        for member in read:
            plain = tarfile.TarInfo(member.name)
            plain.size = member.size
            again.addfile(plain, read.extractfile(member))
    assert buffer.getvalue() == ours
    assert len(ours) % 10240 == 0


@pytest.mark.parametrize("size", [0, 503, 504, 505])
def test_every_length_is_filled_up(size, tmp_path):
    data = b"\x89PNG\r\n\x1a\n" + bytes(size)
    write_shard(tmp_path / "a.tar", [encode("k", 3, data, check=False)] * 2)
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert members == [("k.png", data), ("k.cls", b"3")] * 2


@pytest.mark.parametrize(
    "pixels", [PIXELS.astype(np.float32), PIXELS[0], np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8)]
)
def test_pixels_of_another_kind_are_refused_by_key(pixels):
    with pytest.raises(BadImage, match=r"key_9: pixels are .* are needed"):
        encode("key_9", 0, pixels, check=True)
