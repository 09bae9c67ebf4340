"""The bench's floor has exactly the products of a real step; its table holds every candidate."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitexp.cli import main
from vitexp.nn.config import ViTConfig
from vitexp.nn.vit import build
from vitexp.tools import bench
from vitexp.train.optim import OptimConfig, build_optimizer


def products(step: bench.Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@pytest.mark.parametrize("word", ["1d", "relative"])
def test_the_floor_has_the_products_of_a_step(word: str) -> None:
    size = bench.SIZES["digits"]
    network = build(ViTConfig(arch=size.arch, image_size=size.image, classes=size.classes, pos_embed=word))
    step = bench._step(network, build_optimizer(OptimConfig(), network.named_parameters()), size, "fp32")
    floor = bench._floor(size, torch.float32, relative=word == "relative")
    assert products(floor) == products(step)


def test_every_candidate_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    words = ["1d", "relative"]
    before = torch.get_num_threads()
    try:
        status = main(["bench", "--sizes", "digits", "--seconds", "0.01", "--pos-embed", *words, "--json", str(path)])
    finally:
        torch.set_num_threads(before)
    assert status in (0, None)
    rows = json.loads(path.read_text())["rows"]
    for precision in ("fp32", "bf16"):
        names = {row["name"] for row in rows if row["precision"] == precision}
        assert names >= {"floor", "floor, relative", "timm", "vitexp 1d", "vitexp relative"}
    floors = {row["precision"]: row["milliseconds"] for row in rows if row["name"] == "floor"}
    for row in rows:
        if row["name"] == "vitexp 1d":
            assert row["floor_share"] == pytest.approx(floors[row["precision"]] / row["milliseconds"])
    assert capsys.readouterr().out.count("| vitexp ") == 4
