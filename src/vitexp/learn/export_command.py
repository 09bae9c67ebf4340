"""`vitexp export`: a network in the form that other programs read, compared with what it was made from."""

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
import timm
import torch
from torch import Tensor

from vitexp.learn.network import open_network
from vitexp.nn.vit import ViT, build
from vitexp.nn.weights import load_tensors, read_tensors
from vitexp.nn.weights_npz import save_npz
from vitexp.nn.weights_onnx import onnx_bytes, onnx_logits
from vitexp.nn.weights_own import save_own
from vitexp.nn.weights_timm_hub import hub_files
from vitexp.record import write_atomically

LARGEST_DIFFERENCE = 1e-4
"""Between the logits of two programs, as a share of the largest one where that is above 1."""
_FOLDER_MODE = 0o755


@torch.no_grad()
def export(chosen: Any) -> int:
    """Writes the network and says how far the logits read back are from its own."""
    opened = open_network(chosen.network, chosen.image_size)
    model: Any = opened.vit if chosen.format in ("timm", "npz") else opened.ours
    out = Path(chosen.out)
    if chosen.format != "timm" and out.is_dir():
        raise ValueError(f"{out} is a folder; --format {chosen.format} writes a file")
    write, reader = _FORMS[chosen.format]
    difference = write(model, out)
    parameters = sum(value.numel() for value in model.parameters())
    print(f"Written: {out} ({chosen.format}, {parameters:,} parameters of {opened.words})")
    print(f"Read back by {reader}: logits of random images differ by at most {difference:.1e}")
    return 0


def _timm(model: ViT, out: Path) -> float:
    files = hub_files(model)
    with _whole_folder(out, files) as folder:
        read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        images = _images(model, 2)
        return _difference(model(images), read(images), "timm")


def _onnx(model: ViT, out: Path) -> float:
    size = model.config.image_size
    content, found = onnx_bytes(model, (size, size) if isinstance(size, int) else size), []
    for count in (1, 3):
        images = _images(model, count)
        read = torch.from_numpy(onnx_logits(content, images.numpy()))
        found.append(_difference(model(images), read, "onnxruntime"))
    write_atomically(out, content)
    return max(found)


def _npz(model: ViT, out: Path) -> float:
    save_npz(model, out)
    return _read_again(model, out)


def _safetensors(model: ViT, out: Path) -> float:
    save_own(model, out)
    return _read_again(model, out)


_FORMS = {
    "timm": (_timm, "timm"),
    "onnx": (_onnx, "onnxruntime"),
    "npz": (_npz, "vitexp"),
    "safetensors": (_safetensors, "vitexp"),
}


def _read_again(model: ViT, out: Path) -> float:
    read = build(model.config).eval()
    load_tensors(read, read_tensors(out), source=str(out))
    images = _images(model, 2)
    return _difference(model(images), read(images), "vitexp")


def _images(model: ViT, count: int) -> Tensor:
    size = model.config.image_size
    shape = (size, size) if isinstance(size, int) else size
    return torch.rand(count, 3, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _difference(own: Tensor, read: Tensor, reader: str) -> float:
    """The largest difference of a logit. Raises: ValueError where it is too large to be rounding."""
    difference, allowed = float((read - own).abs().max()), LARGEST_DIFFERENCE * max(1.0, float(own.abs().max()))
    if not difference <= allowed:
        raise ValueError(
            f"{reader} computes other logits than the network, by {difference:.1e}; {allowed:.1e} is allowed"
        )
    return difference


@contextlib.contextmanager
def _whole_folder(out: Path, files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files beside `out`, which takes its place when all went well."""
    _check_place(out, files)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
        fresh = Path(beside) / "fresh"
        fresh.mkdir(mode=_FOLDER_MODE)
        for name, content in files.items():
            write_atomically(fresh / name, content)
        yield fresh
        if out.exists():
            shutil.move(out, Path(beside) / "earlier")
        fresh.replace(out)


def _check_place(out: Path, files: Collection[str]) -> None:
    """Only a folder that an export made is replaced. Raises: ValueError for anything else that is there."""
    if out.is_file():
        raise ValueError(f"{out} is a file; --format timm writes a folder")
    others = sorted(path.name for path in out.iterdir() if path.name not in files) if out.exists() else []
    if others:
        raise ValueError(f"{out} holds {others[0]} and was not made by an export; give a new folder")
