"""Every `vitexp` command in one table: its name, help, arguments, and the function that runs it.

Only the standard library is imported here. The function is an import path, MODULE:FUNCTION, and it is imported when its
command is called. A new command is one more entry of VERBS.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What argparse's `add_argument` takes, and `group`: the heading under which `--help` shows it."""


@dataclass(frozen=True)
class Verb:
    """One command.

    `run` takes the parsed arguments and returns an exit status. With `own_parser` it takes the command line as a list
    instead, because the flags come from the typed parser of training.
    """

    name: str
    help: str
    run: str = ""
    arguments: tuple[Argument, ...] = ()
    description: str | None = None
    """What its own `--help` says first, if that is more than `help`"""
    verbs: tuple["Verb", ...] = ()
    """Commands below this one, such as `shards make`"""
    own_parser: bool = False


def _row(*names: str, **options: Any) -> Argument:
    return names, options


def _flag(name: str, help: str) -> Argument:
    return _row(name, action="store_true", help=help)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0, such as 0.5")
    return float(text)


def _typed(name: str, help: str, run: str = "vitexp.cli:train") -> Verb:
    return Verb(name, help, run, own_parser=True)


# Arguments that several commands share.
_ROOT = _row("--root", default="runs", help="folder of the records (default: runs)")
_RESULTS = _row("--results", default="results", help="folder for what is written (default: results)")
_WANDB = "the runs of a W&B sweep instead of those below --root; without FILE the study is the sweep's own"
_PLACE = ("wandb", "ENTITY/PROJECT/SWEEP")
_FROM = _row("--from", dest="source", nargs="+", default=[], metavar=_PLACE, help=_WANDB)
_WHERE = "only runs with this in their config"
_STUDY = (
    _row("file", metavar="FILE", nargs="?", help="the study's sweep file, such as sweeps/pos_embed.yaml"),
    _FROM,
    _ROOT,
    _RESULTS,
    _row("--where", action="append", default=[], metavar="KEY=VALUE", help=_WHERE),
)
_DIRECTORY = _row("directory", metavar="DIR", type=Path)
_THREADS = _row("--workers", type=int, default=0, help="threads (default: one per processor)")
_FILES_OF_NETWORKS = (
    "a checkpoint of ours (.ckpt, .safetensors), a Google .npz, weights by the names of timm, Hugging Face or "
    "torchvision (.safetensors, .pt, .pth, .bin), FILE#prefix where a file holds several networks"
)
_GELU = "the activation of weights by the names of timm and others, if not the exact GELU of the published ones"
_UNSTATED = (
    _row("--pos-embed", choices=["sincos2d", "none"], help="what a file without a position table does not say"),
    _row("--gelu", choices=["tanh", "exact"], help=_GELU),
    _row("--arch", help="the network's sizes, where a file does not say its heads: w384d12m1536h12/16"),
    _flag("--allow-import", "import the part of somebody's own that the file names, which runs its code"),
)
_NETWORK = (
    _row("network", metavar="NETWORK", help=f"{_FILES_OF_NETWORKS}, or timm:NAME"),
    _row("--image-size", type=int, help="resize images and the network's positions to this many pixels"),
    *_UNSTATED,
    _flag("--random", "timm: random weights"),
    _flag("--download", "timm: fetch weights that are not on this machine"),
)

TRAINING = (
    _typed("fit", "train one network, measure it, write its record"),
    _typed("finetune", "fit from given weights, as the paper fine-tunes"),
    _typed("validate", "measure saved weights on the validation slice"),
    _typed("test", "measure saved weights on the test split"),
    _typed("predict", "write class probabilities of the test split"),
)

_SOURCES = (
    "digits, cifar10, cifar100, mnist, fashion-mnist, hf:NAME, a folder or .tar of class folders (with train/ and "
    "test/ above them, or not), or an .npz with x_train, y_train, x_test, y_test"
)
_HELD_OUT = "held out of train as {}, class by class (default: {})"
_NO_TEST, _NO_VAL = "0.2 where the source has neither test nor val", "none; data.val_fraction does so at training time"
_MAKE = Verb(
    "make",
    "write a data set as WebDataset shards with their index",
    "vitexp.data.shards.command:run_make",
    (
        _row("source", metavar="SOURCE", help=_SOURCES),
        _row("out", metavar="OUT", type=Path, help="the directory to write, such as shards/cifar10"),
        _row("--folder", type=Path, help="where the official files are, or go (default: downloads/SOURCE)"),
        _flag("--download", "fetch the official files where they are missing"),
        _row("--seed", type=int, default=0, help="seed of the one shuffle, written to recipe.json (default: 0)"),
        _row("--shard-images", type=int, default=10_000, help="most images in a shard (default: 10000)"),
        _row("--shard-bytes", type=int, default=10**9, help="most bytes in a shard (default: 10^9)"),
        _row("--test-fraction", type=float, help=_HELD_OUT.format("test", _NO_TEST)),
        _row("--val-fraction", type=float, help=_HELD_OUT.format("val", _NO_VAL)),
        _row("--max-bad", type=int, default=0, help="unreadable images that may be left out (default: 0)"),
        _flag("--no-check", "do not decode every image while writing"),
        _row("--workers", type=int, default=0, help="encoding threads (default: one per processor)"),
    ),
    "Writes a data set as WebDataset shards: the same bytes every time, whole or not at all. To resume a run that was "
    "stopped, give the same command again.",
)
_SHEET = "draw a few training images of each class"
_SHARDS = (
    _MAKE,
    Verb(
        "verify",
        "check shards against their index: checksums, counts, every image decoded; exit status 1 for any problem",
        "vitexp.data.shards.command:run_verify",
        (_DIRECTORY, _flag("--no-decode", "checksums, samples and headers only"), _THREADS),
    ),
    Verb(
        "info",
        "print counts, classes and sizes of a directory of shards",
        "vitexp.data.shards.command:run_info",
        (_DIRECTORY, _row("--contact-sheet", metavar="PNG", type=Path, help=_SHEET)),
    ),
    Verb(
        "index",
        "make the index of shards that were written elsewhere",
        "vitexp.data.shards.command:run_index",
        (_DIRECTORY, _THREADS),
    ),
)

_PROTOCOLS = (
    "drawn: images drawn at random, penalty 1024, as big_vision does; first: the first images of each class, the "
    "penalty that ranks best over all --data on their test images, as Google's code of 2020-21 did"
)
_VIEWS = (
    "the whole image resized; its middle square; or resized to 8/7 of the size and then the middle, as big_vision does "
    "(256 and 224)"
)
_FEWSHOT = Verb(
    "fewshot",
    "few-shot linear probes, by ridge regression, on the frozen features of a network, measured on the test split",
    "vitexp.tools.fewshot:fewshot",
    (
        *_NETWORK,
        _row("--data", nargs="+", required=True, metavar="SHARDS", help="data sets, as data.shards takes them"),
        _row("--shots", nargs="+", type=int, default=[1, 5, 10, 25], help="images per class (1 5 10 25)"),
        _row("--seeds", type=int, help="draws of the images, with seeds from 0 on (default: 3)"),
        _row("--fewer", action="store_true", help="a class with fewer images than shots gives all it has"),
        _row("--protocol", choices=["drawn", "first"], default="drawn", help=_PROTOCOLS),
        _row("--view", choices=["resize", "crop", "resize_crop"], default="resize", help=_VIEWS),
        _row("--batch-size", type=int, default=256, help="images at a time (default: 256)"),
        _row("--workers", type=int, default=0, help="processes that read images (default: 0)"),
        _row("--json", metavar="FILE", help="write the numbers, with what they were made of"),
        _row("--csv", metavar="FILE", help="write one line per draw"),
    ),
)

_FORMATS = (
    "timm: a folder with model.safetensors and config.json, which timm loads as local-dir:OUT; npz: Google's names; "
    "onnx: for any number of images; safetensors: our own names with the config (default: by the ending of OUT, timm "
    "where it has none)"
)
_EXPORT = Verb(
    "export",
    "write a network for timm, ONNX or Google's code",
    "vitexp.tools.export:export",
    (
        _row("network", metavar="NETWORK", help=_FILES_OF_NETWORKS),
        _row("out", metavar="OUT", help="the file to write; for timm the folder"),
        _row("--format", choices=["timm", "npz", "onnx", "safetensors"], help=_FORMATS),
        _row("--image-size", type=int, help="resize the network's positions to this many pixels"),
        *_UNSTATED,
    ),
    "Writes a network in another format and compares the logits read back with its own. A network that the format "
    "cannot express is refused with the reason, and nothing is written.",
)

_LOOKS = (
    "mean attention distance of each head and layer (Fig. 7 right, 11); how much of each patch reaches the readout "
    "(Fig. 6); similarity of position embeddings (Fig. 7 centre); components of the patch embedding (Fig. 7 left)"
)
_LOOK_NAMES = ["distance", "rollout", "similarity", "filters"]
_ATTENTION = Verb(
    "attention",
    "draw what a network attends to, as the ViT paper does, and write the numbers as CSV",
    "vitexp.cli:attention",
    (
        *_NETWORK,
        _row("--what", choices=_LOOK_NAMES, default="distance", help=_LOOKS),
        _row("--data", metavar="SHARDS", help="images for distance and rollout: the first of the test split"),
        _row("--images", type=int, help="how many (default: 128 for distance, 8 for rollout)"),
        _row("--out", default="results/attention", help="folder (default: results/attention)"),
    ),
)

_RAY = "beyond this machine"
_STALE = (
    "finished cells made by other code or other versions of libraries: keep them, or set them aside (in ROOT-aside) "
    "and train them again (default: keep)"
)
_QUICK = (
    "lint: leave out initial weights and orders (large networks take seconds), and take published sizes for known data "
    "sets that are not here"
)
_MODES = ["off", "offline", "online", "auto"]
_ENGINES = ["local", "ray"]
_SWEEP = Verb(
    "sweep",
    "run every cell of a study that has no finished record (sweep lint FILE only checks it)",
    "vitexp.cli:sweep",
    (
        _row("files", nargs="+", metavar="[lint] FILE", help="a sweep file, such as sweeps/pos_embed.yaml"),
        _row("--workers", type=_count, help="cells at a time (default: one per core)"),
        _row("--threads", type=_count, default=1, help="threads per cell (default: 1)"),
        _ROOT,
        _flag("--retry", "run failed cells again, from their first step"),
        _row("--stale", choices=["keep", "rerun"], default="keep", help=_STALE),
        _row("--wandb", choices=_MODES, default="off", help="W&B mode (default: off)"),
        _flag("--quick", _QUICK),
        _row("--engine", group=_RAY, choices=_ENGINES, default="local", help="what runs cells (default: local)"),
        _row("--ray-address", group=_RAY, help="a running cluster, such as auto or HOST:6379 (default: a new one)"),
        _row("--cpus-per-run", group=_RAY, type=_share, help="Ray: CPUs per cell (default: --threads)"),
        _row("--gpus-per-run", group=_RAY, type=_share, help="Ray: GPUs per cell, such as 0.5 (default: 0)"),
    ),
    "Runs the cells of a W&B sweep file on this machine, without an account. Finished cells are skipped; interrupted "
    "ones resume. `vitexp sweep lint FILE` parses every cell and trains nothing.",
)

_REPORTS = (
    Verb(
        "table",
        "mean, interval and paired difference of a study's arms, beside the paper's; as Markdown, CSV and LaTeX too",
        "vitexp.report.command:show_table",
        (*_STUDY, _flag("--figure", "draw the table too: dots.png and dots.svg")),
    ),
    Verb(
        "curve",
        "accuracy against data size, or against the cost of the runs (study.x), as PNG, SVG and CSV",
        "vitexp.report.command:show_curve",
        _STUDY,
    ),
    Verb(
        "report",
        "one offline HTML file: table, figures and every run behind them",
        "vitexp.report.command:show_report",
        _STUDY,
    ),
    Verb(
        "claims",
        "what the runs say about each claim of the ViT paper: supported, contradicted, undecided",
        "vitexp.report.command:show_claims",
        (
            _row("paths", nargs="*", metavar="PATH", help="sweep files, or folders of runs"),
            _FROM,
            _ROOT,
            _RESULTS,
        ),
        "Tests every claim of the ViT paper that a study touches against its runs, and writes the verdicts as "
        "Markdown, CSV and JSON. Without a PATH it reads every study below --root. Trains nothing.",
    ),
    Verb(
        "diff",
        "what makes two runs different: config, code, data, versions, devices, numbers, answers to images",
        "vitexp.report.command:show_diff",
        tuple(_row(side, metavar="RUN", help="a run's folder or record") for side in ("one", "other")),
    ),
)

_SIZES = ["digits", "cifar", "vit-s", "r26-s", "vit-b"]
_BENCH = Verb(
    "bench",
    "what a training step costs here, beside its matrix products and beside other libraries",
    "vitexp.tools.bench:bench",
    (
        _row("--sizes", nargs="+", default=_SIZES[:4], choices=_SIZES, help="default: digits cifar vit-s r26-s"),
        _row("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"], help="default: both"),
        _row("--pos-embed", nargs="+", default=["1d"], metavar="WORD", help="positions to try (default: 1d)"),
        _row("--gelu", default="tanh", choices=["tanh", "exact"], help="peers have the exact one (default: tanh)"),
        _flag("--compile", "also our networks with torch.compile"),
        _row("--seconds", type=float, default=3.0, help="for each candidate (default: 3)"),
        _row("--threads", type=_count, default=1, help="default: 1"),
        _row("--json", metavar="FILE", help="write the rows here too"),
    ),
)

VERBS = (
    *TRAINING,
    _typed("verify-resume", "kill and resume a run of this config, and compare", run="vitexp.cli:verify_resume"),
    Verb("shards", "make, verify, describe or index a directory of shards", verbs=_SHARDS),
    _FEWSHOT,
    _EXPORT,
    _ATTENTION,
    _SWEEP,
    *_REPORTS,
    _BENCH,
    Verb(
        "init",
        "write the experiments and sweeps into a folder; a file of yours is never overwritten",
        "vitexp.starter:run",
        (_row("directory", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this one"),),
    ),
)
