"""Keys are read again from the shards as they were when these were indexed, long and foreign names too."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from vitexp.data.shards.files import keys_of
from vitexp.data.shards.index import open_shards

KEYS = ["plain", "in/a/folder", "much/" + "longer/" * 20 + "name", "größer", "=1+1"]


def write(path, keys, kind):
    picture = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "PNG")
    with tarfile.open(path, "w", format=kind) as tar:
        for number, key in enumerate(keys):
            for name, data in ((f"{key}.png", picture.getvalue()), (f"{key}.cls", str(number % 2).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_keys_are_the_names_in_the_shards(tmp_path, kind):
    write(tmp_path / "set-train-000000.tar", KEYS[:2], kind)
    write(tmp_path / "set-train-000001.tar", KEYS[2:5], kind)
    index = open_shards(tmp_path)
    assert keys_of(index, np.arange(5)) == KEYS
    assert keys_of(index, np.array([4, 0])) == [KEYS[4], KEYS[0]]


def test_a_shard_that_was_written_over_is_refused(tmp_path):
    path = tmp_path / "set-train-000000.tar"
    write(path, ["a", "b"], tarfile.USTAR_FORMAT)
    index = open_shards(tmp_path)
    write(path, ["a", "c"], tarfile.USTAR_FORMAT)
    with pytest.raises(ValueError, match="has changed since it was indexed: sample 1 is called 'c' now"):
        keys_of(index, np.arange(2))
