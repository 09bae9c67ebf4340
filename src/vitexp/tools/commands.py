"""The commands that measure or convert a kept network. Until one is called, only the standard library is imported."""

import argparse
from collections.abc import Callable
from typing import Any

NETWORK_HELP = (
    "a checkpoint of ours (.ckpt, .safetensors), a Google .npz, weights by the names of timm, Hugging Face or "
    "torchvision (.safetensors, .pt, .pth, .bin), FILE#prefix where a file holds several networks, or timm:NAME"
)


def add_commands(verbs: Any, draw: Callable[..., Any]) -> None:
    """Adds `fewshot`, `export` and `attention`; `draw` is the door's, because pictures belong to a floor above."""
    _add_fewshot(verbs)
    _add_export(verbs)
    _add_attention(verbs, draw)


def _add_fewshot(verbs: Any) -> None:
    fewshot = verbs.add_parser(
        "fewshot",
        help="few-shot linear probes on the frozen features of a network",
        description="Solves a ridge regression on the frozen features of a few images a class, and measures it on the "
        "test split. Features are computed once for all numbers of shots and all draws.",
    )
    _add_network(fewshot)
    fewshot.add_argument(
        "--data", nargs="+", required=True, metavar="SHARDS", help="data sets, as data.shards takes them"
    )
    fewshot.add_argument("--shots", nargs="+", type=int, default=[1, 5, 10, 25], help="images a class (1 5 10 25)")
    fewshot.add_argument("--seeds", type=int, help="draws of the images, the seeds from 0 on (default: 3)")
    fewshot.add_argument(
        "--protocol",
        choices=["drawn", "first"],
        default="drawn",
        help="drawn: images drawn at random, penalty 1024, as big_vision does; first: the first images of each class, "
        "the penalty that ranks best over all --data on their test images, as Google's code of 2020-21 did",
    )
    fewshot.add_argument(
        "--view",
        choices=["resize", "crop", "resize_crop"],
        default="resize",
        help="the whole image resized; its middle square; or resized to 8/7 of the size and then the middle, as "
        "big_vision does (256 and 224)",
    )
    fewshot.add_argument("--batch-size", type=int, default=256, help="images at a time (default: 256)")
    fewshot.add_argument("--workers", type=int, default=0, help="processes that read images (default: 0)")
    fewshot.add_argument("--json", metavar="FILE", help="write the numbers, with what they were made of")
    fewshot.add_argument("--csv", metavar="FILE", help="write one line a draw")
    fewshot.set_defaults(run=_fewshot)


def _add_export(verbs: Any) -> None:
    export = verbs.add_parser(
        "export",
        help="write a network for timm, ONNX or Google's code",
        description="Writes a network in another form and compares the logits read back with its own. What a form "
        "cannot express is refused by name, and nothing is written.",
    )
    export.add_argument("network", metavar="NETWORK", help=NETWORK_HELP.rpartition(", or")[0])
    export.add_argument("out", metavar="OUT", help="the file to write; for timm the folder")
    export.add_argument(
        "--format",
        choices=["timm", "npz", "onnx", "safetensors"],
        help="timm: a folder with model.safetensors and config.json, which timm loads as local-dir:OUT; npz: Google's "
        "names; onnx: for any number of images; safetensors: our own names with the config; "
        "without it: what OUT ends in, timm where it ends in nothing",
    )
    export.add_argument("--image-size", type=int, help="resize the network's positions to this many pixels")
    _add_stated(export)
    export.set_defaults(run=_export)


def _export(chosen: argparse.Namespace) -> int:
    from vitexp import torch_ops  # noqa: F401  (before lightning and timm)
    from vitexp.tools.export import export

    return export(chosen)


def _add_attention(verbs: Any, draw: Callable[..., Any]) -> None:
    attention = verbs.add_parser(
        "attention",
        help="what a network looks at: attention distance, rollout, position similarity, filters",
        description="Draws one of the ViT paper's pictures of a trained network, and writes its numbers as CSV.",
    )
    _add_network(attention)
    attention.add_argument(
        "--what",
        choices=["distance", "rollout", "similarity", "filters"],
        default="distance",
        help="mean attention distance of each head and layer (Fig. 7 right, 11); what of an image reaches the readout "
        "(Fig. 6); similarity of position embeddings (Fig. 7 centre); components of the patch embedding (Fig. 7 left)",
    )
    attention.add_argument(
        "--data", metavar="SHARDS", help="images for distance and rollout: the first of the test split"
    )
    attention.add_argument("--images", type=int, help="how many (default: 128 for distance, 8 for rollout)")
    attention.add_argument("--out", default="results/attention", help="folder (default: results/attention)")
    attention.set_defaults(run=lambda chosen: _attention(chosen, draw))


def _attention(chosen: argparse.Namespace, draw: Callable[..., Any]) -> int:
    from vitexp import torch_ops  # noqa: F401  (before lightning and timm)
    from vitexp.tools.attention import attention

    return attention(chosen, draw)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help=NETWORK_HELP)
    parser.add_argument("--image-size", type=int, help="resize images and the network's positions to this many pixels")
    _add_stated(parser)
    parser.add_argument("--random", action="store_true", help="timm: random weights")
    parser.add_argument("--download", action="store_true", help="timm: fetch weights that are not on this machine")


def _add_stated(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pos-embed", choices=["sincos2d", "none"], help="what a file without a position table does not say"
    )
    parser.add_argument(
        "--gelu",
        choices=["tanh", "exact"],
        help="the activation of weights by the names of timm and others, if not the exact GELU of the published ones",
    )
    parser.add_argument("--arch", help="the network's sizes, where a file does not say its heads: w384d12m1536h12/16")


def _fewshot(chosen: argparse.Namespace) -> int:
    from vitexp import torch_ops  # noqa: F401  (before lightning and timm)
    from vitexp.tools.fewshot import fewshot

    return fewshot(chosen)
