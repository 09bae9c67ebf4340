"""What an index of ten million samples costs: built, opened, subset and iterated in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys, time
from collections import Counter
from pathlib import Path
import numpy as np
from vitexp.data.shards.index import open_shards
from vitexp.data.shards.index import write_index
from vitexp.data.order import draw
from vitexp.data.shards.layout import find_shards
from vitexp.data.order import EpochOrder
from vitexp.data.shards.scan import ROW, ShardScan
from vitexp.data.opened import choose, fingerprint, hold_out

folder, shards, images = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
costs = {}


def clock(name, start=[time.perf_counter()]):
    now = time.perf_counter()
    costs[name] = [round(now - start[0], 2), round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)]
    start[0] = now


def scan(number):
    rows = np.zeros(images, ROW)
    rows["key"] = draw(7, np.arange(number * images, (number + 1) * images))
    rows["block"], rows["length"] = 1 + np.arange(images) * 4, 1000
    rows["label"] = (rows["key"] % 1000).astype(np.int32)
    name, size = f"s-train-{number:06d}.tar", images * 2048 + 1024
    return ShardScan(name, rows, size, f"{number:064x}", [9, 9], [9, 9], "", Counter())


for number in range(shards):
    with open(folder / f"s-train-{number:06d}.tar", "wb") as file:
        file.truncate(images * 2048 + 1024)
clock("start")
write_index(find_shards(folder), "train", map(scan, range(shards)))
clock("build")
index = open_shards(folder)
clock("open")
kept, held = hold_out(index.labels, index.keys, len(index) // 100)
clock("hold out")
chosen = choose(index.labels, index.keys, kept, len(kept) // 2, 0)
clock("choose")
fingerprint(index.labels, index.keys, chosen)
clock("fingerprint")
order, seen = EpochOrder(kept, index.starts, 0), np.zeros(len(index), bool)
for start in range(0, len(order), 4096):
    samples = order.samples(1, start, min(start + 4096, len(order)))
    assert not seen[samples].any()
    seen[samples] = True
    assert index.labels[samples].min() >= 0
assert seen.sum() == len(kept)
clock("iterate")
print(json.dumps({"bytes": (folder / "s-train.index.npy").stat().st_size / len(index), "costs": costs}))
"""


@pytest.mark.slow
def test_ten_million_samples_within_a_gigabyte(tmp_path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "set").mkdir()
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "set"), "1000", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["bytes"] == pytest.approx(24, abs=0.01)
    assert max(megabytes for _, megabytes in found["costs"].values()) < 1024
