"""A door for the runner's tests: real configs, real records, and trouble on demand, without a network to train.

`python trainer.py SWEEP ROOT WORKERS [retry]` runs a study in a process of its own, which a test can kill. With
ANOTHER_MACHINE=NAME in its environment it behaves as on a machine of that name, to which no flock reaches.
"""

import fcntl
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

from vitexp.record import RunRecord, cell_fingerprint, fingerprint, run_directory, write_record
from vitexp.source import package_versions, source_hash

BEST_LR = 0.01
FINISHED = "2026-01-01T00:01:00+00:00"

if machine := os.environ.get("ANOTHER_MACHINE"):
    from vitexp.study.run import lock

    fcntl.flock = lambda *_: None
    lock.boot_id = lambda: machine
    lock.platform.node = lambda: machine
    lock.BEAT_SECONDS = lock.SILENT_SECONDS / 60


def parse(argv):
    """What the door makes of a cell: `fit --config FILE [--run.root ROOT]`."""
    arguments = json.loads(Path(argv[argv.index("--config") + 1]).read_text())
    config = {
        "seed_everything": 0,
        "study": {"name": "single"},
        "model": {"seconds": 0.0, "trouble": "none", "lr": 0.1},
    }
    for name, value in arguments.items():
        group, _, key = name.rpartition(".")
        if group:
            config.setdefault(group, {})[key] = value
        elif isinstance(value, dict):
            config[name].update(value)
        else:
            config[name] = value
    return _resolved(config, argv[argv.index("--run.root") + 1])


def examine(argv):
    """The plan with a start that says whose it is."""
    config = parse(argv)["config"]
    return {"start": {"weights": {}, "order": f"{config['seed_everything']} {config['model']['lr']}", "views": ""}}


def broken(argv):
    raise KeyError("start")


def _resolved(config, root):
    trouble = config["model"]["trouble"]
    if config["model"].pop("lost", False):
        config["model"]["lr"] = 0.1
    if trouble.startswith("parser killed") and (trouble.endswith("always") or _first_time(Path(root) / "parsed")):
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "parser waits":
        (Path(root) / f"parser-{os.getpid()}").touch()
        time.sleep(60)
    if trouble == "refused":
        raise ValueError("model.trouble cannot be refused; allowed: none")
    if trouble == "refused with status 2":
        print("usage: ...", file=sys.stderr)
        print("error: model.trouble is wrong", file=sys.stderr)
        raise SystemExit(2)
    cell = f"tiny-{cell_fingerprint(config)[:8]}"
    folder = run_directory(root, config["study"]["name"], cell, config["seed_everything"])
    answer = {"fingerprint": fingerprint(config), "cell": cell, "run_directory": str(folder), "config": config}
    return answer | {"steps": 20}


def certify(argv):
    """Notes whom it was asked about; finds a fault where the trouble is one."""
    asked = json.loads(argv[0])
    model = asked["model"]
    with open(model["log"], "a") as file:
        file.write(f"{model['trouble']} against {asked['baseline']['trouble']}, seed {asked['seed']}\n")
    if model["trouble"] == "no certificate":
        raise ValueError("its file has changed")
    verdict = "FAILS" if model["trouble"] == "dead" else "holds"
    return {"checks": [{"check": name, "verdict": verdict, "text": "nothing comes"} for name in ("gradient", "size")]}


def _first_time(mark):
    found = mark.exists()
    mark.touch()
    return not found


def train(argv, log_path):
    """Sleeps instead of training; everything else is as in a real run."""
    plan = parse(argv)
    folder, model = Path(plan["run_directory"]), plan["config"]["model"]
    with (folder / "trainings").open("a") as file:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {gpus} {' '.join(argv)}\n")
    if model["trouble"] == "no record":
        print("nothing to train\n", flush=True)
        sys.exit(3)
    facts = {name: plan[name] for name in ("cell", "fingerprint", "config")}
    facts |= {"study": plan["config"]["study"]["name"], "seed": plan["config"]["seed_everything"]}
    facts |= {"steps": 20, "code": {"source": source_hash()}, "versions": package_versions()}
    if model["trouble"] == "saves":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_save(facts, folder)))
    write_record(RunRecord(status="running", **facts), folder)
    _spend(model, folder)
    metrics = {
        "val_acc": 0.5 + facts["seed"] / 100,
        "test_acc": 0.5,
        "val_loss": math.log10(model["lr"] / BEST_LR) ** 2,
    }
    if "level" in model:  # an accuracy with a noise that seed and arm choose
        metrics["test_acc"] = model["level"] + 0.01 * random.Random(f"{facts['seed']} {model['level']}").gauss(0, 1)
    if (
        model["trouble"] == "nan"
        and "--again" not in argv
        and len((folder / "trainings").read_text().splitlines()) == 1
    ):
        write_record(RunRecord(status="failed", reason="ValueError: the loss is not finite", **facts), folder)
        raise ValueError("the loss is not finite")
    flat = facts["seed"] in model.get("flat", ())  # a network that learns nothing at these seeds
    learning = {"train_loss_start": 2.3, "train_loss_end": 2.31 if flat else 0.5}
    if model["trouble"] != "exit 0 unfinished":
        ended = {"status": "finished", "finished": FINISHED}
        write_record(RunRecord(metrics=metrics, learning=learning, **ended, **facts), folder)
    if model["trouble"] == "finished, exit 1":
        sys.exit(1)


def _save(facts, folder):
    """What a run does that is asked to end: its record says how to go on."""
    reason = "ended by SIGTERM after step 7 of 20; --ckpt_path last goes on from there"
    write_record(RunRecord(status="stopped", reason=reason, **facts), folder)
    return 143


def _spend(model, folder):
    log = folder / "metrics" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("epoch,step,train_loss,val_acc\n0,10,2.0,\n0,10,,0.25\n")
    if model["trouble"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if model["trouble"] == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(model["seconds"])
    go, end = folder.parents[2] / "go", time.monotonic() + 60
    while model["trouble"] in ("waits", "saves") and not go.exists() and time.monotonic() < end:
        time.sleep(0.02)


def main():
    from vitexp.study.run.runner import run_study
    from vitexp.study.spec import read_study

    root = sys.argv[2]
    outcome = run_study(
        read_study(sys.argv[1]),
        parse=parse,
        train=train,
        root=root,
        workers=int(sys.argv[3]),
        retry="retry" in sys.argv,
        extra=["--run.root", root],
        resume=["--ckpt_path", "last"],
        preload=["vitexp.record"],
    )
    return outcome.exit_status


if __name__ == "__main__":
    from vitexp.cli import guarded

    sys.exit(guarded(main))
