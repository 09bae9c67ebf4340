"""`vitexp bench`: what a training step costs here, beside its own matrix products and beside other libraries.

Absolute times say more of a machine than of code, so everything is a ratio within one run: all candidates take turns
in one process, and the median of their steps is compared. Two things are the measure: `floor`, the matrix products of
the same network alone, forward and backward, at the same precision and into memory that is there already; and peers,
each a network of the same size with torch's fused AdamW.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.nn.arch import Arch, parse_arch
from vitexp.nn.config import ViTConfig
from vitexp.nn.vit import build
from vitexp.record import write_atomically
from vitexp.tools.bench_rows import HEAD, Row, goals_of, line, spread
from vitexp.train.optim import OptimConfig, build_optimizer

Step = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """A network, as `--model.arch` has it, and its batch. `goals`: the share of the floor to reach, by precision; of a
    hybrid, whose convolutions have no floor here, the multiple of timm's speed.
    """

    arch: str
    goals: dict[str, float]
    image: int = 224
    classes: int = 1000
    batch: int = 128

    @property
    def sizes(self) -> Arch:
        """The network in numbers."""
        return parse_arch(self.arch)


SIZES = {
    "digits": Size("micro/2", {"fp32": 0.68, "bf16": 0.52}, image=8, classes=10),
    "cifar": Size("w192d6m768h3/4", {"fp32": 0.88, "bf16": 0.83}, image=32, classes=10),
    "vit-s": Size("S/16", {"fp32": 0.85, "bf16": 0.72}, batch=8),
    "vit-b": Size("B/16", {"fp32": 0.85, "bf16": 0.55}, batch=64),
    "r26-s": Size("R26+S/32", {"fp32": 1.0, "bf16": 1.0}, batch=4),
}
LIKE_SIMPLE_VIT = "vitexp as SimpleViT"
"""Ours with what vit-pytorch's network has: no class token, fixed positions, the exact GELU."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def bench(chosen: Any) -> int:
    """Measures, prints a table, writes JSON where asked for."""
    torch.set_num_threads(chosen.threads)
    wall, own = time.monotonic(), time.process_time()
    rows: list[Row] = []
    print(_machine(), end="\n\n")
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n")
    for size in chosen.sizes:
        for precision in chosen.precisions:
            found = _measure(size, precision, chosen)
            print("\n".join(map(line, found)), flush=True)
            rows += found
    noise = max(row.spread for row in rows if row.name in ("floor", "timm"))
    print(f"\nSteps of the floors and of timm spread by up to {noise:.0%}: differences below that are noise.")
    given = (time.process_time() - own) / (time.monotonic() - wall) / chosen.threads
    print(f"The machine gave this process {given:.0%} of the time of {chosen.threads} threads.")
    if chosen.json:
        about = {"machine": _machine(), "noise": noise, "processor_share": given}
        written = {**about, "rows": [asdict(row) for row in rows]}
        write_atomically(chosen.json, json.dumps(written, indent=2) + "\n")
        print(f"Written: {chosen.json}")
    return 0


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    rates = ", ".join(f"{name} {_rate(dtype):,.2f}" for name, dtype in PRECISIONS.items())
    return (
        f"{platform.machine()}, {device}, torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"matrix products, TFLOP/s: {rates}"
    )


def _rate(dtype: torch.dtype, side: int = 1024) -> float:
    """TFLOP/s of one large product."""
    one, other = torch.randn(2, side, side, device=_device()).to(dtype)
    out = torch.empty_like(one)
    times = _race({"product": lambda: torch.mm(one, other, out=out)}, 1.0)["product"]
    return 2 * side**3 / statistics.median(times) / 1e12


def _measure(name: str, precision: str, chosen: Any) -> list[Row]:
    """The rows of one network at one precision."""
    size = SIZES[name]
    candidates = dict(_candidates(size, precision, chosen))
    times = _race(candidates, chosen.seconds * len(candidates))
    medians = {candidate: statistics.median(found) for candidate, found in times.items()}
    return [_row(name, precision, candidate, found, medians) for candidate, found in times.items()]


def _row(name: str, precision: str, candidate: str, times: Sequence[float], medians: dict[str, float]) -> Row:
    """A candidate beside the floor and the peers, where these were measured."""
    others = {"floor": _floor_of(candidate, medians), "timm": "timm", "vit-pytorch": "vit-pytorch"}
    own = medians[candidate]
    reached = {of: medians[other] / own if other in medians else None for of, other in others.items()}
    return Row(
        size=name,
        precision=precision,
        name=candidate,
        milliseconds=1000 * own,
        spread=spread(times),
        steps=len(times),
        floor_share=reached["floor"],
        times_timm=reached["timm"],
        times_vit_pytorch=reached["vit-pytorch"],
        goals=goals_of(candidate, precision, SIZES[name].goals[precision], reached),
    )


def _floor_of(candidate: str, medians: dict[str, float]) -> str:
    """Relative positions have products of their own, and one token less makes fewer: each is held against its own."""
    if candidate.startswith(("vit-pytorch", LIKE_SIMPLE_VIT)):
        return "floor, no class token"
    own = "relative" in candidate.replace(",", "").split()
    return "floor, relative" if own and "floor, relative" in medians else "floor"


def _candidates(size: Size, precision: str, chosen: Any) -> Iterator[tuple[str, Step]]:
    hybrid = size.sizes.resnet_blocks is not None
    if not hybrid:
        yield "floor", _floor(size, PRECISIONS[precision])
        yield "floor, no class token", _floor(size, PRECISIONS[precision], prefix=0)
        if "relative" in chosen.pos_embed:
            yield "floor, relative", _floor(size, PRECISIONS[precision], relative=True)
    peers = {"timm": _timm, "vit-pytorch": _vit_pytorch, "transformers": _transformers}
    for name, make in {"timm": _timm_hybrid}.items() if hybrid else peers.items():
        with suppress(ImportError):
            peer = make(size)
            yield name, _step(peer, torch.optim.AdamW(peer.parameters(), fused=True), size, precision)
    ours: dict[str, dict[str, Any]] = {
        f"vitexp {word}": {"pos_embed": word, "gelu": chosen.gelu} for word in chosen.pos_embed
    }
    if not hybrid:
        ours[LIKE_SIMPLE_VIT] = {"pos_embed": "sincos2d", "pool": "gap", "gelu": "exact"}
    for name, words in ours.items():
        network = build(ViTConfig(arch=size.arch, image_size=size.image, classes=size.classes, **words))
        optimizer = build_optimizer(OptimConfig(), network.named_parameters())
        yield name, _step(network, optimizer, size, precision)
        if chosen.compile:
            yield f"{name}, compiled", _step(torch.compile(network), optimizer, size, precision)


def _timm(size: Size) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    arch = size.sizes
    return VisionTransformer(
        img_size=size.image,
        patch_size=arch.patch,
        embed_dim=arch.width,
        depth=arch.depth,
        num_heads=arch.heads,
        num_classes=size.classes,
    )


def _timm_hybrid(size: Size) -> nn.Module:
    from timm import create_model

    return create_model("vit_small_r26_s32_224", num_classes=size.classes)


def _vit_pytorch(size: Size) -> nn.Module:
    """It has no class token, so one token less, fixed positions and the exact GELU."""
    from vit_pytorch.simple_vit import SimpleViT

    arch = size.sizes
    return SimpleViT(
        image_size=size.image,
        patch_size=arch.patch,
        num_classes=size.classes,
        dim=arch.width,
        depth=arch.depth,
        heads=arch.heads,
        mlp_dim=arch.mlp_width,
        dim_head=arch.width // arch.heads,
    )


def _transformers(size: Size) -> nn.Module:
    from transformers import ViTConfig as Config
    from transformers import ViTForImageClassification

    arch = size.sizes
    config = Config(
        image_size=size.image,
        patch_size=arch.patch,
        hidden_size=arch.width,
        num_hidden_layers=arch.depth,
        num_attention_heads=arch.heads,
        intermediate_size=arch.mlp_width,
        num_labels=size.classes,
    )
    return ViTForImageClassification(config)


def _step(network: Any, optimizer: torch.optim.Optimizer, size: Size, precision: str) -> Step:
    """A training step on a batch in memory: forward, backward, update."""
    device = _device()
    network.to(device)
    images = torch.rand(size.batch, 3, size.image, size.image, device=device) * 2 - 1
    labels = torch.randint(size.classes, (size.batch,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found = network(images)
        logits = getattr(found, "logits", found)  # those of transformers have a name
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def _floor(size: Size, dtype: torch.dtype, relative: bool = False, prefix: int = 1) -> Step:
    """All matrix products of a step and nothing else."""
    arch, batch = size.sizes, size.batch
    width, hidden, patches = arch.width, arch.mlp_width, (size.image // arch.patch) ** 2
    tokens, heads, head_width = patches + prefix, batch * arch.heads, width // arch.heads
    products = _linear(batch * patches, 3 * arch.patch**2, width, dtype)[:2]  # images need no gradient
    for _ in range(arch.depth):
        for inward, outward in ((width, 3 * width), (width, width), (width, hidden), (hidden, width)):
            products += _linear(batch * tokens, inward, outward, dtype)
        products += _three((heads, tokens, head_width), (heads, head_width, tokens), dtype)
        products += _three((heads, tokens, tokens), (heads, tokens, head_width), dtype)
        if relative:
            products += _linear(heads * tokens, head_width, 2 * tokens - 1, dtype)
    products += _linear(batch, width, size.classes, dtype)

    def step() -> None:
        for product in products:
            product()

    return step


def _linear(rows: int, inward: int, outward: int, dtype: torch.dtype) -> list[Step]:
    """A dense layer: its output, the gradient of its weight, that of its input."""
    x, weight, gradient = (_normal(shape, dtype) for shape in ((rows, inward), (outward, inward), (rows, outward)))
    y, of_weight, of_x = torch.empty_like(gradient), torch.empty_like(weight), torch.empty_like(x)
    return [
        lambda: torch.mm(x, weight.t(), out=y),
        lambda: torch.mm(gradient.t(), x, out=of_weight),
        lambda: torch.mm(gradient, weight, out=of_x),
    ]


def _three(one: tuple[int, int, int], other: tuple[int, int, int], dtype: torch.dtype) -> list[Step]:
    """A batch of products and its two gradients."""
    a, b = _normal(one, dtype), _normal(other, dtype)
    gradient = _normal((one[0], one[1], other[2]), dtype)
    out, of_a, of_b = torch.empty_like(gradient), torch.empty_like(a), torch.empty_like(b)
    return [
        lambda: torch.bmm(a, b, out=out),
        lambda: torch.bmm(gradient, b.transpose(1, 2), out=of_a),
        lambda: torch.bmm(a.transpose(1, 2), gradient, out=of_b),
    ]


def _normal(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, device=_device()).to(dtype)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _race(candidates: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Seconds of each step of each candidate, who take turns: CPU time of the process, or wall time on a GPU."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for step in candidates.values():
        step(), step()
    end = time.monotonic() + seconds
    while time.monotonic() < end or min(map(len, times.values())) < 5:
        for name, step in candidates.items():
            before = _now()
            step()
            times[name].append(_now() - before)
    return times


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
