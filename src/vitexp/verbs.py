"""Every `vitexp` command in one table: its name, help, arguments, and the function that runs it.

Only the standard library is imported here. The function is an import path, MODULE:FUNCTION, and it is imported when its
command is called. A new command is one more entry of VERBS.
"""

from pathlib import Path

from vitexp.verb import Verb, count, flag, row, typed
from vitexp.verbs_of_studies import STUDIES

# Arguments that several commands share.
_DIRECTORY = row("directory", metavar="DIR", type=Path)
_THREADS = row("--workers", type=int, default=0, help="threads (default: one per processor)")
_FILES_OF_NETWORKS = (
    "a checkpoint of ours (.ckpt, .safetensors), a Google .npz, weights by the names of timm, Hugging Face or "
    "torchvision (.safetensors, .pt, .pth, .bin), FILE#prefix where a file holds several networks"
)
_GELU = "the activation of weights by the names of timm and others, if not the exact GELU of the published ones"
_UNSTATED = (
    row("--pos-embed", choices=["sincos2d", "none"], help="what a file without a position table does not say"),
    row("--gelu", choices=["tanh", "exact"], help=_GELU),
    row("--arch", help="the network's sizes, where a file does not say its heads: w384d12m1536h12/16"),
    flag("--allow-import", "import the part of somebody's own that the file names, which runs its code"),
)
_NETWORK = (
    row("network", metavar="NETWORK", help=f"{_FILES_OF_NETWORKS}, or timm:NAME"),
    row("--image-size", type=int, help="resize images and the network's positions to this many pixels"),
    *_UNSTATED,
    flag("--random", "timm: random weights"),
    flag("--download", "timm: fetch weights that are not on this machine"),
)

TRAINING = (
    typed("fit", "train one network, measure it, write its record"),
    typed("finetune", "fit from given weights, as the paper fine-tunes"),
    typed("validate", "measure saved weights on the validation slice"),
    typed("test", "measure saved weights on the test split"),
    typed("predict", "write class probabilities of the test split"),
)

_SOURCES = (
    "digits; drawn-digits, drawn-what or drawn-where, perhaps with @train=N,test=N,seed=N; shapes-what, shapes-where, "
    "shapes-count; cifar10, cifar100, mnist, fashion-mnist, hf:NAME, a folder or .tar of class folders (with train/ "
    "and test/ above them, or not), an .npz with x_train, y_train, x_test, y_test; "
    "or a class of your own, MODULE:NAME, perhaps with @option=value"
)
_HELD_OUT = "held out of train as {}, class by class (default: {})"
_NO_TEST, _NO_VAL = "0.2 where the source has neither test nor val", "none; data.val_fraction does so at training time"
_MAKE = Verb(
    "make",
    "write a data set as WebDataset shards with their index",
    "vitexp.data.shards.command:run_make",
    (
        row("source", metavar="SOURCE", help=_SOURCES),
        row("out", metavar="OUT", type=Path, help="the directory to write, such as shards/cifar10"),
        row("--folder", type=Path, help="where the official files are, or go (default: downloads/SOURCE)"),
        flag("--download", "fetch the official files where they are missing"),
        row("--seed", type=int, default=0, help="seed of the one shuffle, written to recipe.json (default: 0)"),
        row("--shard-images", type=int, default=10_000, help="most images in a shard (default: 10000)"),
        row("--shard-bytes", type=int, default=10**9, help="most bytes in a shard (default: 10^9)"),
        row("--test-fraction", type=float, help=_HELD_OUT.format("test", _NO_TEST)),
        row("--val-fraction", type=float, help=_HELD_OUT.format("val", _NO_VAL)),
        row("--max-bad", type=int, default=0, help="unreadable images that may be left out (default: 0)"),
        flag("--no-check", "do not decode every image while writing"),
        row("--workers", type=int, default=0, help="encoding threads (default: one per processor)"),
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
        (_DIRECTORY, flag("--no-decode", "checksums, samples and headers only"), _THREADS),
    ),
    Verb(
        "info",
        "print counts, classes and sizes of a directory of shards",
        "vitexp.data.shards.command:run_info",
        (
            _DIRECTORY,
            row("--contact-sheet", metavar="PNG", type=Path, help=_SHEET),
            flag("--json", "print one JSON document instead (docs/json.md)"),
        ),
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
        row("--data", nargs="+", required=True, metavar="SHARDS", help="data sets, as data.shards takes them"),
        row("--shots", nargs="+", type=int, default=[1, 5, 10, 25], help="images per class (1 5 10 25)"),
        row("--seeds", type=int, help="draws of the images, with seeds from 0 on (default: 3)"),
        row("--fewer", action="store_true", help="a class with fewer images than shots gives all it has"),
        row("--protocol", choices=["drawn", "first"], default="drawn", help=_PROTOCOLS),
        row("--view", choices=["resize", "crop", "resize_crop"], default="resize", help=_VIEWS),
        row("--batch-size", type=int, default=256, help="images at a time (default: 256)"),
        row("--workers", type=int, default=0, help="processes that read images (default: 0)"),
        row("--json", metavar="FILE", help="write the numbers, with what they were made of"),
        row("--csv", metavar="FILE", help="write one line per draw"),
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
        row("network", metavar="NETWORK", help=_FILES_OF_NETWORKS),
        row("out", metavar="OUT", help="the file to write; for timm the folder"),
        row("--format", choices=["timm", "npz", "onnx", "safetensors"], help=_FORMATS),
        row("--image-size", type=int, help="resize the network's positions to this many pixels"),
        *_UNSTATED,
    ),
    "Writes a network in another format and compares the logits read back with its own. A network that the format "
    "cannot express is refused with the reason, and nothing is written.",
)

_INSIDE = (
    "distance: mean attention distance of each head and layer (the paper's Fig. 7 right, 11); similarity: of position "
    "vectors (Fig. 7 centre, 10), and decay: by their distance; offsets: what relative positions add; filters: "
    "components of the patch embedding (Fig. 7 left); rollout: how much of each patch reaches the readout (Fig. 6); "
    "attention: of the class token in the last layer; cka: likeness of the layers (default: all that there is)"
)
_INSIDE_NAMES = ["distance", "similarity", "decay", "offsets", "filters", "rollout", "attention", "cka"]
_INSPECT = Verb(
    "inspect",
    "what networks have learned to look at, as the ViT paper shows it, over seeds and arm minus arm",
    "vitexp.cli:inspect",
    (
        row(
            "networks",
            metavar="STUDY|RUN|NETWORK",
            nargs="+",
            help=f"a sweep file, runs/STUDY, the folder of a run; {_FILES_OF_NETWORKS}, or timm:NAME",
        ),
        *_NETWORK[1:],
        row("--what", nargs="+", choices=_INSIDE_NAMES, help=_INSIDE),
        row("--data", metavar="SHARDS", help="images: the first of the test split (default: of a run's own data)"),
        row("--images", type=count, default=128, help="how many (default: 128); 16 of them are drawn"),
        row("--out", default="results", help="folder, in which studies have one of their own (default: results)"),
        row("--root", default="runs", help="folder of the records (default: runs)"),
    ),
    "Writes a PNG, an SVG and a CSV of everything, for one network or for each arm of a study: there over seeds, each "
    "head matched with the one of the baseline's first seed that attends most alike, and as differences to the "
    "baseline.",
)

_SIZES = ["digits", "cifar", "vit-s", "r26-s", "vit-b"]
_BENCH = Verb(
    "bench",
    "what a training step costs here, beside its matrix products and beside other libraries",
    "vitexp.tools.bench:bench",
    (
        row("--sizes", nargs="+", default=_SIZES[:4], choices=_SIZES, help="default: digits cifar vit-s r26-s"),
        row("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"], help="default: both"),
        row("--pos-embed", nargs="+", default=["1d"], metavar="WORD", help="positions to try (default: 1d)"),
        row("--gelu", default="tanh", choices=["tanh", "exact"], help="peers have the exact one (default: tanh)"),
        flag("--compile", "also our networks with torch.compile"),
        row("--seconds", type=float, default=3.0, help="for each candidate (default: 3)"),
        row("--threads", type=count, default=1, help="default: 1"),
        row("--json", metavar="FILE", help="write the rows here too"),
    ),
)

VERBS = (
    *TRAINING,
    typed("verify-resume", "kill and resume a run of this config, and compare", run="vitexp.cli:verify_resume"),
    typed("selfcheck", "check that a config's network is what it says, without data", run="vitexp.cli:selfcheck"),
    Verb("shards", "make, verify, describe or index a directory of shards", verbs=_SHARDS),
    _FEWSHOT,
    _EXPORT,
    _INSPECT,
    *STUDIES,
    _BENCH,
    Verb(
        "init",
        "write the experiments, recipes and sweeps into a folder; a file of yours is never overwritten",
        "vitexp.starter:run",
        (row("directory", metavar="DIR", type=Path, nargs="?", default=Path(), help="default: this one"),),
    ),
)
