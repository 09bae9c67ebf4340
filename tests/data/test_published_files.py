"""CIFAR's two forms and MNIST's files, each made here by hand as their makers describe them."""

import gzip
import io
import pickletools
import struct
import tarfile

import numpy as np
import pytest

from vitexp.data.sources.named import read_cifar, read_idx

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 2, 4, 5, 6, 7, 8, 0])
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def short(text):
    return b"U" + bytes([len(text)]) + text.encode()


def names_list(names):
    return b"](" + b"".join(short(name) for name in names) + b"e"


def numbers_list(numbers):
    return b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"


def array(images):
    """An array of bytes as Python 2's cPickle wrote it with protocol 2."""
    data = planes(images).tobytes()
    shape = b"K" + bytes([len(images)]) + b"M\x00\x0c\x86"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", len(data)) + data + b"tb"
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state


def pickled(**entries):
    content = b"\x80\x02}(" + b"".join(short(key) + value for key, value in entries.items()) + b"u."
    pickletools.dis(content, out=io.StringIO())  # raises where the stack does not come out even
    return content


def batch(images, labels, number):
    return pickled(
        batch_label=short(f"training batch {number} of 5"),
        labels=numbers_list(labels),
        data=array(images),
        filenames=names_list([f"data_{i}.png" for i in range(len(images))]),
    )


def packed(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return [path]


def check(splits, names):
    np.testing.assert_array_equal(splits["train"][0], IMAGES[:10])
    np.testing.assert_array_equal(splits["train"][1], LABELS[:10])
    np.testing.assert_array_equal(splits["test"][0], IMAGES[10:])
    np.testing.assert_array_equal(splits["test"][1], LABELS[10:])
    assert names == NAMES


def test_the_binary_form(tmp_path):
    records = np.hstack([LABELS[:, None].astype(np.uint8), planes(IMAGES)])
    files = {f"data_batch_{i + 1}.bin": records[2 * i : 2 * i + 2].tobytes() for i in range(5)}
    files |= {"test_batch.bin": records[10:].tobytes(), "batches.meta.txt": "\n".join(NAMES).encode() + b"\n\n"}
    check(*read_cifar("binary", packed(tmp_path / "a.tar.gz", files), False))


@pytest.mark.parametrize("form", ["python", "batches"])
def test_the_python_form_without_unpickling(tmp_path, form):
    files = {
        f"data_batch_{i + 1}": batch(IMAGES[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2], i + 1) for i in range(5)
    }
    files["test_batch"] = batch(IMAGES[10:], LABELS[10:], 1)
    files["batches.meta"] = pickled(num_cases_per_batch=b"M\x10'", label_names=names_list(NAMES), num_vis=b"M\x00\x0c")
    if form == "python":
        paths = packed(tmp_path / "a.tar.gz", files)
    else:
        paths = [tmp_path / name for name in files]
        for path in paths:
            path.write_bytes(files[path.name])
    check(*read_cifar(form, paths, False))


def test_the_hundred_fine_classes_and_not_the_coarse_ones(tmp_path):
    fine, coarse = LABELS * 11, LABELS + 1
    records = np.hstack([coarse[:, None].astype(np.uint8), fine[:, None].astype(np.uint8), planes(IMAGES)])
    names = [f"class_{i}" for i in range(100)]
    text = {"fine_label_names.txt": "\n".join(names).encode(), "coarse_label_names.txt": b"x\ny\n"}
    files = {"train.bin": records[:10].tobytes(), "test.bin": records[10:].tobytes(), **text}
    splits, found = read_cifar("binary", packed(tmp_path / "a.tar.gz", files), True)
    assert splits["train"][1].tolist() == fine[:10].tolist()
    assert found == tuple(names)

    def whole(rows):
        entries = {"coarse_labels": numbers_list(coarse[rows]), "fine_labels": numbers_list(fine[rows])}
        return pickled(filenames=names_list(["a"]), **entries, data=array(IMAGES[rows]))

    meta = pickled(coarse_label_names=names_list(["x", "y"]), fine_label_names=names_list(names))
    files = {"train": whole(slice(10)), "test": whole(slice(10, 12)), "meta": meta}
    again, found = read_cifar("python", packed(tmp_path / "b.tar.gz", files), True)
    assert found == tuple(names)
    for split in ("train", "test"):
        np.testing.assert_array_equal(again[split][0], splits[split][0])
        np.testing.assert_array_equal(again[split][1], splits[split][1])


def test_a_batch_without_its_labels_is_refused(tmp_path):
    files = {"data_batch_1": batch(IMAGES[:3], LABELS[:2], 1), "test_batch": batch(IMAGES[:1], LABELS[:1], 1)}
    with pytest.raises(ValueError, match="2 labels and 9216 bytes"):
        read_cifar("python", packed(tmp_path / "a.tar.gz", files), False)


def test_nothing_in_a_pickle_is_run(tmp_path):
    flag = tmp_path / "ran"
    evil = b"cos\nsystem\n(U" + bytes([len(f"touch {flag}")]) + f"touch {flag}".encode() + b"tR"
    files = {"data_batch_1": pickled(evil=evil, labels=numbers_list(LABELS[:2]), data=array(IMAGES[:2]))}
    files |= {"test_batch": batch(IMAGES[:1], LABELS[:1], 1), "batches.meta": pickled(label_names=names_list(NAMES))}
    read_cifar("python", packed(tmp_path / "a.tar.gz", files), False)
    assert not flag.exists()


def test_idx_files(tmp_path):
    grey = IMAGES[..., 0]
    content = {}
    for word, rows in (("train", slice(8)), ("t10k", slice(8, 12))):
        content[f"{word}-images"] = struct.pack(">IIII", 0x803, len(grey[rows]), 32, 32) + grey[rows].tobytes()
        content[f"{word}-labels"] = struct.pack(">II", 0x801, len(grey[rows])) + LABELS[rows].astype(np.uint8).tobytes()
    paths = [tmp_path / name for name in content]
    for path in paths:
        path.write_bytes(gzip.compress(content[path.name]))
    splits, _ = read_idx(paths)
    np.testing.assert_array_equal(splits["train"][0], grey[:8])
    np.testing.assert_array_equal(splits["test"][1], LABELS[8:])
    paths[0].write_bytes(gzip.compress(b"\0\0\x0d\3" + bytes(100)))
    with pytest.raises(ValueError, match="train-images is no idx file"):
        read_idx(paths)
