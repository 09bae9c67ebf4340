"""A worker that is killed is one sentence, where its work is waited for and nowhere else."""

import multiprocessing
import os
import signal
import time

import pytest

from vitexp.data.batch import LostWorker
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
