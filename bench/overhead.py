"""What the framework costs a training step: `python bench/overhead.py [--repeats 5]`.

A bare loop trains the same network on the same batches, which lie in memory, with the same optimizer and clipping; then
`vitexp fit` trains it as a cell of a sweep does (CSV alone), and as a user does (bar in a terminal, CSV, W&B offline).
All three run in turns in one process on one thread; figures are microseconds of CPU a step, medians over the turns with
the least and the most. Epochs are of 22 steps, as in the study; nothing is validated, tested or probed, and no start or
end of a run is counted. `--profile user` prints where the time of one such run goes instead.
"""

import argparse
import contextlib
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "WANDB_MODE": "offline"}
os.environ |= {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}  # the bar draws as in a terminal

import torch
from torch import nn
from torch.nn import functional as F

from vitexp.cli import main
from vitexp.configured import from_config
from vitexp.train.module import Classifier

CONFIG = str(Path(__file__).parents[1] / "experiments/pos_ablation.yaml")
OPTIONS: dict[str, Any] = {"model.arch": "micro/8", "data.val_fraction": 0, "run.shots": []}
OPTIONS |= {"run.test": False, "trainer.max_epochs": 20, "model.warmup_steps": 2}
WAYS = {
    "cell of a sweep": {"run.wandb": "off", "trainer.enable_progress_bar": False},
    "as a user runs it": {"run.wandb": "offline"},
}
GOALS = {"cell of a sweep": 400, "as a user runs it": 600}
"""At most so many microseconds a step over the bare loop."""
WARM = 44
"""Steps before the clock starts."""


def bare() -> float:
    """CPU seconds a step of a plain loop."""
    run = from_config(CONFIG, OPTIONS)
    run.data.prepare_data()
    batches = [run.data.on_after_batch_transfer(batch, 0) for batch in run.data.train_dataloader()]
    optimizer = torch.optim.AdamW(run.module.network.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    parameters = list(run.module.network.parameters())
    for step in range((count := 20 * len(batches)) + 1):
        if step == WARM:
            since = time.process_time()
        batch = batches[step % len(batches)]
        loss = F.cross_entropy(run.module.network(batch.images), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return (time.process_time() - since) / (count + 1 - WARM)


def framework(way: str, profile: cProfile.Profile | None = None) -> float:
    """CPU seconds a step under `vitexp fit`, from the start of one step to that of the last."""
    words = [f"--{name}={value}" for name, value in {**OPTIONS, **WAYS[way]}.items()]
    times: list[float] = []
    step = Classifier.training_step

    def timed(*arguments: Any) -> Any:
        if profile and len(times) == WARM:
            profile.enable()
        times.append(time.process_time())
        return step(*arguments)

    with (
        mock.patch.object(Classifier, "training_step", timed),
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        status = main(["fit", "--config", CONFIG, f"--run.dir={folder}", *words])
    if profile:
        profile.disable()
    if status:
        raise SystemExit(f"{way}: vitexp fit ended with status {status}")
    return (times[-1] - times[WARM]) / (len(times) - 1 - WARM)


def profiled(way: str) -> None:
    """Prints what of a run's steps is spent in whose functions themselves, and the functions that take the most."""
    profile = cProfile.Profile(time.process_time)
    framework(way, profile)
    stats: Any = pstats.Stats(profile)
    owners: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, _) in stats.stats.items():
        owners[_owner(file, name)] += own
    total = sum(owners.values())
    for owner, seconds in owners.most_common(16):
        print(f"{seconds / total:6.1%}  {owner}")
    stats.sort_stats("tottime").print_stats(60)


def _owner(file: str, name: str) -> str:
    """The package, and of Lightning and vitexp the folder in it; of C functions their name."""
    parts = file.replace("\\", "/").rpartition("/site-packages/")[2].rpartition("/src/")[2].split("/")
    deep = 3 if parts[0] == "lightning" else 2 if parts[0] in ("vitexp", "torch") else 1
    return name if file == "~" else "/".join(parts[:deep])


def measured(repeats: int) -> str:
    """The table, as Markdown."""
    found: dict[str, list[float]] = {name: [] for name in ("bare loop", *WAYS)}
    for turn in range(repeats + 1):
        for name, figures in found.items():
            seconds = bare() if name == "bare loop" else framework(name)
            figures += [1e6 * seconds] if turn else []  # the first turn fills caches
    lines = ["| CPU us a step | median | least-most | over the bare loop | goal |", "|---|---|---|---|---|"]
    for name, figures in found.items():
        over = statistics.median(one - own for one, own in zip(figures, found["bare loop"], strict=True))
        spread = f"{min(figures):,.0f}-{max(figures):,.0f}"
        most = GOALS.get(name)
        goal = f"at most {most}, {'met' if over <= most else 'missed'}" if most else ""
        lines.append(f"| {name} | {statistics.median(figures):,.0f} | {spread} | {over:,.0f} | {goal} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", choices=["user", "cell"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):  # the shards of digits are made here
        if chosen.profile:
            profiled(next(way for way in WAYS if chosen.profile in way))
        else:
            print(measured(chosen.repeats))
