"""`vitexp export`: a network in the form that other programs read, compared with what it was made from."""

import contextlib
import copy
import importlib.util
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before timm)
import timm
import torch
from torch import Tensor

from vitexp.nn.config import pair
from vitexp.nn.vit import ViT, build
from vitexp.own import failing
from vitexp.record import write_atomically
from vitexp.tools.network import open_chosen
from vitexp.weights.google import npz_bytes, npz_state
from vitexp.weights.load import load_weights
from vitexp.weights.read import own_bytes
from vitexp.weights.timm import encoder_arguments, hub_files

_APART = 1e-4  # the logits of two programs, as a share of the largest one where that is above 1
_FOLDER_MODE = 0o755
_COUNTS = (1, 3)  # of images at a time

Content = bytes | Mapping[str, bytes]
Network = Callable[[Tensor], Tensor]


class Export(NamedTuple):
    """A format: what is written, the network that its own program makes of that, and the program."""

    content: Callable[[Any], Content]
    read: Callable[[Path, Any], Network]
    reader: str


@torch.no_grad()
def export(chosen: Any) -> int:
    """Writes the network and says how far the logits read back are from its own."""
    model: Any = open_chosen(chosen).ours
    out = Path(chosen.out)
    named = chosen.format or _format_of(out)
    target = EXPORTS[named]
    content, headless = target.content(model), not model.head.weight.any()
    _check_place(out, content, named)
    with _laid(content, out) as fresh:
        if headless:
            whole = _with_a_head(model)
            with _laid(target.content(whole), out) as other:
                difference = _compared(whole, target.read(other, whole), target.reader)
        else:
            difference = _compared(model, target.read(fresh, model), target.reader)
        if out.is_dir():
            shutil.move(out, fresh.with_name("earlier"))
        fresh.replace(out)
    parameters = sum(value.numel() for value in model.parameters())
    print(f"Written: {out} ({named}, {parameters:,} parameters of {chosen.network})")
    print(f"Read back by {target.reader}: logits of random images differ by at most {difference:.1e}")
    if named == "timm" and isinstance(model, ViT):
        act = f"act_layer={encoder_arguments(model)['act_layer']!r}"
        print(f"note: timm's config.json says {act}; where the weights go without it, give it to create_model")
    if named == "npz" and model.config.pos_embed == "sincos2d":
        print("note: the names of a .npz do not say pos_embed sincos2d: its reader must add the fixed sines")
    if headless:
        print("note: the head is all zeros, as of a network that has learned no classes; a random one was compared")
    return 0


def _format_of(out: Path) -> str:
    """What a name ends in. Raises: ValueError for an ending that is no format."""
    if not out.suffix or out.is_dir():
        return "timm"
    if (named := out.suffix.removeprefix(".")) in EXPORTS:
        return named
    known = ".npz, .onnx or .safetensors, in nothing for timm's folder, or give --format"
    raise ValueError(f"{out} ends in {out.suffix}, which is no format: let it end in {known}")


_MOST_BYTES = 2**31  # an ONNX file counts in 31 bits
_ONNX = "ONNX for any number of images, which a part of your own must take from x.shape[0] and not from len(x),"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def _onnx_bytes(model: Any) -> bytes:
    """A file for any number of images: input `images` (B, 3, rows, columns) in [-1, 1], output `logits` (B, classes).

    Raises: ValueError where the extra is not installed, and for weights that one file cannot hold.
    """
    if absent := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"ONNX needs packages that are not here ({', '.join(absent)}): pip install 'vitexp[onnx]'")
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size >= _MOST_BYTES:
        raise ValueError(f"an ONNX file cannot hold {size / 1e9:.1f} GB of weights, at most {_MOST_BYTES / 1e9:.1f}")
    images = torch.zeros(2, 3, *pair(model.config.image_size))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports its steps, and warns of its own parts
    with failing(_ONNX), warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            model.eval().cpu(),
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "without a file name the exporter returns what it made"
    return program.model_proto.SerializeToString()


def _by_onnxruntime(path: Path, model: Any) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def read(images: torch.Tensor) -> torch.Tensor:
        with failing(_ONNX):
            return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return read


def _by_us(path: Path, model: Any) -> Network:
    read = build(model.config).eval()
    load_weights(read, path)
    return read


EXPORTS = {
    "timm": Export(hub_files, lambda path, _: timm.create_model(f"local-dir:{path}", pretrained=True).eval(), "timm"),
    "onnx": Export(_onnx_bytes, _by_onnxruntime, "onnxruntime"),
    "npz": Export(lambda model: npz_bytes(npz_state(model), model.config), _by_us, "vitexp"),
    "safetensors": Export(own_bytes, _by_us, "vitexp"),
}


def _with_a_head(model: Any) -> Any:
    """The same network with random numbers in a head of zeros, behind which no difference would be seen."""
    other = copy.deepcopy(model)
    weight = other.head.weight
    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / weight.shape[1] ** 0.5)
    return other


def _compared(model: Any, read: Network, reader: str) -> float:
    """The largest difference of a logit. Raises: ValueError where it is too large to be rounding."""
    largest = 0.0
    for count in _COUNTS:
        shape = (count, 3, *pair(model.config.image_size))
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        own = model(images)
        apart, allowed = float((read(images) - own).abs().max()), _APART * max(1.0, float(own.abs().max()))
        if not apart <= allowed:
            raise ValueError(
                f"{reader} computes other logits than the network: {apart:.1e} apart, {allowed:.1e} allowed"
            )
        largest = max(largest, apart)
    return largest


@contextlib.contextmanager
def _laid(content: Content, out: Path) -> Iterator[Path]:
    """The file or folder, whole, in a folder beside `out` that goes when all is done."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
        fresh = Path(beside) / "fresh"
        if isinstance(content, bytes):
            write_atomically(fresh, content)
        else:
            fresh.mkdir(mode=_FOLDER_MODE)
            for name, part in content.items():
                write_atomically(fresh / name, part)
        yield fresh


def _check_place(out: Path, content: Content, named: str) -> None:
    """Only a file, or a folder that an export made, is replaced. Raises: ValueError for anything else that is there."""
    if isinstance(content, bytes):
        if out.is_dir():
            raise ValueError(f"{out} is a folder; --format {named} writes a file")
    elif out.is_file():
        raise ValueError(f"{out} is a file; --format {named} writes a folder")
    elif others := sorted(path.name for path in out.glob("*") if path.name not in content):
        raise ValueError(f"{out} holds {others[0]} and was not made by an export; give a new folder")
