"""A run whose output nobody reads any more is finished, and says so in its record and status."""

import os
import sys

from vitexp.record import read_record

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_steps=3", "--trainer.accelerator=cpu"]


def test_a_reader_that_leaves_ends_no_run(door, monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as closed:
        os.close(reading)
        monkeypatch.setattr(sys, "stdout", closed)
        assert door("fit", *TINY, "--run.dir=run", "--run.shots=[]", "--run.wandb=off") == 0
    assert read_record("run").status == "finished"
