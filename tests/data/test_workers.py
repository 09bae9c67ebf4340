"""A worker that is killed is one sentence, where its work is waited for and nowhere else."""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from vitexp.data.batch import LostWorker, default_workers
from vitexp.data.module import ShardData


def test_a_killed_worker_is_noticed_where_its_work_is_waited_for(digits) -> None:
    before = set(multiprocessing.active_children())
    data = ShardData(shards=str(digits), batch_size=8, workers=1)
    batches = iter(data.train_dataloader())
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.01)  # where torch's own handler would raise: in the midst of a step
    with pytest.raises(
        LostWorker, match=r"^a data worker ended before its work was done \(.*data\.workers[^\n]*$"
    ) as lost:
        list(batches)
    assert lost.value.exit_status == 1
    assert len(list(ShardData(shards=str(digits), batch_size=200, workers=1).val_dataloader())) == 1  # others go on


@pytest.mark.parametrize(
    ("cores", "ranks", "expected"), [(16, 1, 8), (16, 4, 3), (2, 1, 1), (1, 1, 0), (4, 8, 0), (96, 8, 8)]
)
def test_files_are_decoded_on_the_cores_that_a_rank_has_left(monkeypatch, cores, ranks, expected) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers(False, "cuda", ranks) == expected
    assert default_workers(True, "cuda", ranks) == default_workers(False, "cpu", ranks) == 0


@pytest.mark.parametrize(("reader", "asked", "expected"), [("local", None, 8), ("cache", None, 0), ("local", 0, 0)])
def test_a_run_starts_that_many_where_no_number_is_given(monkeypatch, digits, reader, asked, expected) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    data = ShardData(shards=str(digits), reader=reader, workers=asked)
    assert data.train_dataloader().workers == (asked or 0)  # without a trainer there is no device to wait for
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    data.trainer = SimpleNamespace(strategy=strategy, num_devices=1, global_rank=0, world_size=1, fit_loop=None)
    assert data.val_dataloader().workers == expected
