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
from vitexp.tools.bench_rows import goals_of
from vitexp.train.optim import OptimConfig, build_optimizer


def products(step: bench.Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@pytest.mark.parametrize(("word", "pool"), [("1d", "cls"), ("relative", "cls"), ("sincos2d", "gap")])
def test_the_floor_has_the_products_of_a_step(word: str, pool: str) -> None:
    size = bench.SIZES["digits"]
    network = build(ViTConfig(arch=size.arch, image_size=size.image, classes=size.classes, pos_embed=word, pool=pool))
    step = bench._step(network, build_optimizer(OptimConfig(), network.named_parameters()), size, "fp32")
    floor = bench._floor(size, torch.float32, relative=word == "relative", prefix=int(pool == "cls"))
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
    written = json.loads(path.read_text())
    rows = written["rows"]
    assert written["noise"] == max(row["spread"] for row in rows if row["name"] in ("floor", "timm"))
    assert 0 < written["processor_share"] < 1.1
    for precision in ("fp32", "bf16"):
        names = {row["name"] for row in rows if row["precision"] == precision}
        assert names >= {"floor", "floor, relative", "timm", "vitexp 1d", "vitexp relative", bench.LIKE_SIMPLE_VIT}
    floors = {(row["precision"], row["name"]): row["milliseconds"] for row in rows if "floor" in row["name"]}
    own_floor = {"vitexp 1d": "floor", "vitexp relative": "floor, relative"}
    own_floor |= dict.fromkeys((bench.LIKE_SIMPLE_VIT, "vit-pytorch"), "floor, no class token")
    for row in rows:
        if floor := own_floor.get(row["name"]):
            assert row["floor_share"] == pytest.approx(floors[row["precision"], floor] / row["milliseconds"])
        if row["name"] == "vitexp 1d":
            assert row["goals"][0]["reached"] == row["floor_share"]
            assert row["goals"][0]["least"] == bench.SIZES["digits"].goals[row["precision"]]
        assert bool(row["goals"]) == row["name"].startswith("vitexp")
        for goal in row["goals"]:
            assert goal["met"] == (goal["reached"] >= goal["least"])
    printed = [line for line in capsys.readouterr().out.splitlines() if "| vitexp " in line]
    assert len(printed) == 6
    assert all("floor 0." in line and ("met" in line or "missed" in line) for line in printed)


REACHED = {"floor": 0.7, "timm": 0.9, "vit-pytorch": 1.1}


@pytest.mark.parametrize(
    ("name", "precision", "reached", "told"),
    [
        ("vitexp 1d", "fp32", REACHED, [("floor", 0.68, True), ("timm", 1.0, False), ("vit-pytorch", 1.0, True)]),
        ("vitexp 1d", "fp32", {**REACHED, "vit-pytorch": None}, [("floor", 0.68, True), ("timm", 1.0, False)]),
        ("vitexp 1d", "bf16", REACHED, [("floor", 0.68, True), ("vit-pytorch", 1.0, True)]),
        ("vitexp relative, compiled", "fp32", REACHED, [("floor", 0.68, True)]),
        ("vitexp 1d", "fp32", {"floor": None, "timm": 0.7, "vit-pytorch": None}, [("timm", 0.68, True)]),
        ("timm", "fp32", REACHED, []),
    ],
    ids=["all peers", "a peer is not installed", "bf16", "no peer has the word", "a hybrid has no floor", "a peer"],
)
def test_goals(
    name: str, precision: str, reached: dict[str, float | None], told: list[tuple[str, float, bool]]
) -> None:
    assert [(goal.of, goal.least, goal.met) for goal in goals_of(name, precision, 0.68, reached)] == told
