"""Do two versions of the code give the same numbers? Sixteen short runs, one set of shards, one table.

    python bench/same_numbers.py write numbers.json     with the one
    python bench/same_numbers.py check numbers.json     with the other: each difference by name, exit status 1 if any

Every value of every axis is in some run. Compared to the bit: fingerprints, metrics, losses of each step, the final
weights by name, the answers to each image, shards, and the table as CSV. Only the command line and files are used, so
both versions may lie in any rooms. Bits depend on the processor and on torch: compare on one machine.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "WANDB_SILENT": "true"}

import torch

from vitexp.cli import main

torch.set_num_threads(1)
LAST = "checkpoints/last.ckpt"
RUNS = {
    "1d every": "--model.pos_embed=1d --model.pos_at=every",
    "2d shared gap": "--model.pos_embed=2d --model.pos_at=shared --model.pool=gap",
    "relative sgd": "--model.pos_embed=relative --model.optimizer=sgd --model.lr=0.03",
    "sincos2d map": "--model.pos_embed=sincos2d --model.pool=map",
    "rope local": "--model.pos_embed=rope --model.attention=local",
    "axial gap": "--model.attention=axial --model.pool=gap --model.gelu=exact",
    "none, best weights": "--model.pos_embed=none --run.keep=best --model.head=tanh",
    "polyak, sigmoid": "--model.polyak=0.9 --model.loss=sigmoid --model.label_smoothing=0.1 --model.head_bias=-2",
    "dropout, mixed": "--model.dropout=0.1 --data.mix=mixup --data.augment=crop_flip --data.workers=1",
    "randaugment": "--data.augment=randaugment --data.image_size=16 --data.mix=cutmix --model.clip_norm=1",
    "masked": "--model.objective=masked_mean --run.shots=[]",
    "hybrid": "--model.arch=R14+micro/16 --data.image_size=32 --data.train_images=96",
    "preact": "--model.arch=R14x0.5 --data.image_size=32 --data.train_images=96",
    "postact": "--model.arch=R14x0.5 --model.resnet=postact --data.image_size=32 --data.train_images=96",
    "from weights": "--run.init=first.safetensors --data.image_size=16",
}
COMMON = "--seed_everything=3 --trainer.max_epochs=2 --data.train_images=256 --data.batch_size=32 --run.wandb=off"
COMMON += " --trainer.enable_progress_bar=false --trainer.log_every_n_steps=1 --model.warmup_steps=2"
SWEEP = """
program: vitexp
method: grid
metric: {name: val_acc, goal: maximize}
parameters:
  model.pos_embed: {values: [none, 1d]}
  seed_everything: {values: [0, 1]}
  trainer.max_epochs: {value: 1}
  data.train_images: {value: 256}
  run.wandb: {value: "off"}
  study.name: {value: tiny}
  study.metrics: {value: [test_acc, fewshot_5]}
command: ["${env}", vitexp, fit, --config, experiments/pos_ablation.yaml, "--config", "${args_json_file}"]
"""


def run(*words: str) -> None:
    """One command, silently. Raises: SystemExit with what it said, where it fails."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        status = main([str(word) for word in words])
    if status:
        raise SystemExit(f"{' '.join(words)}: {said.getvalue()}")


def digest(content: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def numbers_of(folder: Path) -> dict[str, object]:
    """All that may not change, of one run."""
    record = json.loads((folder / "record.json").read_text())
    about = ["fingerprint", "cell", "status", "parameters", "train_flops", "steps", "images_seen", "data"]
    names = [*about, "metrics", "learning", "curves", "answers"]
    found: dict[str, object] = {name: record[name] for name in names}
    state = torch.load(folder / LAST, weights_only=True)["state_dict"]
    found["weights"] = {n: digest(v.contiguous().view(-1).numpy().tobytes()) for n, v in state.items()}
    rows = next(folder.glob("metrics/**/metrics.csv")).read_text().splitlines()
    keep = [i for i, name in enumerate(rows[0].split(",")) if name != "images_per_second"]
    found["rows"] = digest("\n".join(",".join(row.split(",")[i] for i in keep) for row in rows).encode())
    return found


def measured() -> dict[str, object]:
    """The numbers of this version; the current folder is a fresh one."""
    found: dict[str, object] = {}
    for name, words in {"first": "", **RUNS}.items():
        folder = name.replace(" ", "-").replace(",", "")
        run("fit", "--config", "experiments/pos_ablation.yaml", *COMMON.split(), f"--run.dir={folder}", *words.split())
        found[name] = numbers_of(Path(folder))
        if name == "first":
            run("export", f"{folder}/{LAST}", "first.safetensors")
        print(f"{name}: {found[name]['fingerprint']}", file=sys.stderr, flush=True)  # type: ignore[index]
    run("shards", "make", "digits", "made")
    found["shards"] = {path.name: digest(path.read_bytes()) for path in sorted(Path("made").iterdir())}
    Path("tiny.yaml").write_text(SWEEP)
    run("sweep", "tiny.yaml", "--workers", "1")
    run("table", "tiny.yaml")
    found["table"] = {path.name: path.read_text() for path in sorted(Path("results").rglob("*.csv"))}
    return found


def differences(one: object, other: object, name: str) -> list[str]:
    """A line for each number that is not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = sorted(one.keys() | other.keys())
        return [line for key in both for line in differences(one.get(key), other.get(key), f"{name}/{key}")]
    return [] if one == other else [f"{name}: {str(one)[:80]} -> {str(other)[:80]}"]


if __name__ == "__main__":
    verb, file = sys.argv[1], Path(sys.argv[2]).absolute()
    home = Path(__file__).absolute().parent.parent
    machine = {"processor": platform.processor(), "torch": torch.__version__, "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("experiments").symlink_to(home / "experiments")
        found = json.loads(json.dumps({"machine": machine, **measured()}))
    if verb == "write":
        file.write_text(json.dumps(found, indent=1) + "\n")
        raise SystemExit
    apart = differences(json.loads(file.read_text()), found, "")
    print("\n".join(apart) or f"the same: {len(found) - 1} groups of numbers, to the bit")
    raise SystemExit(bool(apart))
