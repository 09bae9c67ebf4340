"""Networks of a study over its seeds: matched heads, arm minus arm, files of each arm."""

import re
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tools_at_work import look, table

from vitexp import (
    cli,
    torch_ops,  # noqa: F401  (before timm)
)
from vitexp.data.module import ShardData
from vitexp.eval.attention_maps import mean_attention_distance, watch_attention
from vitexp.eval.representations import match_heads
from vitexp.record import read_record, write_record
from vitexp.stats import interval
from vitexp.study.networks import read_networks
from vitexp.tools.inside import Inside, images_of, look_inside
from vitexp.tools.network import open_network

STUDY = """\
program: vitexp
method: grid
metric: {name: val_acc, goal: maximize}
command: ["${env}", vitexp, fit, --config, short.yaml, --config, "${args_json_file}"]
parameters:
  model.pos_embed: {values: [1d, relative]}
  seed_everything: {values: [0, 1, 2]}
  study.name: {value: inside}
  study.baseline: {value: {model.pos_embed: 1d}}
  study.metrics: {value: [test_acc]}
"""
SHORT = """\
study: {name: inside}
model: {arch: micro/4, lr: 3.0e-3, warmup_steps: 1}
data: {shards: digits, batch_size: 512}
trainer: {max_steps: 3, accelerator: cpu}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two arms with three seeds, trained."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "sweep.yaml").write_text(STUDY)
    (folder / "short.yaml").write_text(SHORT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for word, seed in product(("1d", "relative"), range(3)):
            asked = ["--model.pos_embed", word, "--seed_everything", str(seed)]
            assert not cli.main(["fit", "--config", "short.yaml", *asked])
    return folder


def heads(folder, model):
    """The mean attention of each head to the first images, as `inspect` itself is not asked."""
    data = ShardData(shards=str(folder / "shards/digits"), batch_size=16, val_fraction=0.0)
    images = next(iter(data.eval_loader("test")))
    seen = watch_attention(model, data.on_after_batch_transfer(images, 0).images, 5, 4)
    return torch.stack([layer.mean(dim=0) for layer in seen]), seen


def test_a_study_shows_means_over_seeds_with_heads_matched_to_the_first(study, tmp_path, monkeypatch):
    monkeypatch.chdir(study)
    words = ["--images", "16", "--out", str(tmp_path), "--what", "distance"]
    assert cli.main(["inspect", "sweep.yaml", *words]) == 0
    rows = table(tmp_path / "inside/inspect/pos_embed-1d-distance.csv")
    by_seed, reference = {}, None
    for seed in range(3):
        (file,) = study.glob(f"runs/inside/*1d*/seed-{seed}/checkpoints/last.ckpt")
        mean, seen = heads(study, open_network(str(file)).network)
        reference = mean if reference is None else reference
        distances = mean_attention_distance(seen, (2, 2), prefix=1, patch_pixels=4.0)
        by_seed[seed] = distances.gather(1, match_heads(reference, mean)).flatten().numpy()
        assert [float(row[f"seed_{seed}"]) for row in rows] == pytest.approx(by_seed[seed], abs=1e-5)
    for at, row in enumerate(rows):
        expected = interval([float(row[f"seed_{seed}"]) for seed in range(3)])
        found = [float(row[key]) for key in ("distance_pixels", "low", "high")]
        assert found == pytest.approx([expected.mean, expected.low, expected.high], abs=1e-9), at
    less = table(tmp_path / "inside/inspect/pos_embed-relative-minus-pos_embed-1d-distance.csv")
    other = table(tmp_path / "inside/inspect/pos_embed-relative-distance.csv")
    cli.main(["report", "sweep.yaml", "--results", str(tmp_path), "--out", str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"<figcaption>(inspect/.*?)</figcaption><img", page) == [
        f"inspect/pos_embed-{arm}-distance.svg" for arm in ("1d", "relative", "relative-minus-pos_embed-1d")
    ]
    for seed in range(3):
        apart = [float(a[f"seed_{seed}"]) - float(b[f"seed_{seed}"]) for a, b in zip(other, rows, strict=True)]
        assert [float(row[f"seed_{seed}"]) for row in less] == pytest.approx(apart)


@pytest.mark.parametrize(("other", "matched"), [({"pool": "gap"}, True), ({"pool": "gap", "arch": "micro/4"}, False)])
def test_heads_are_matched_by_their_patches_or_are_not_compared(saved, other, matched):
    """With another class token too, numbers do not depend on how heads are numbered; another grid has none to match."""
    data = images_of("digits", "resize", 8)
    saved()
    base = look_inside(open_network("own.safetensors"), ["distance"], data, 8, Inside())
    found = []
    for flip in (False, True):

        def renumber(model, flip=flip):
            for block in model.blocks if flip else ():
                attention, heads = block.attention, model.layout.heads
                for one in (attention.qkv.weight, attention.qkv.bias):
                    one.copy_(one.unflatten(0, (3, heads, -1)).flip(1).flatten(0, 2).clone())
                weight = attention.out.weight
                weight.copy_(weight.unflatten(1, (heads, -1)).flip(1).flatten(1, 2).clone())

        saved(renumber, **other)
        found.append(look_inside(open_network("own.safetensors"), ["distance"], data, 8, base))
    assert [one.matched for one in found] == [matched, matched]
    same = np.allclose(found[0].numbers["distance"], found[1].numbers["distance"], atol=1e-5)
    assert same == matched


def test_what_was_measured_on_other_images_is_not_subtracted(saved, tmp_path, monkeypatch, capsys):
    saved()
    groups = [
        ("s/inspect/one", "s: one", {0: "own.safetensors"}, ("digits", "resize"), None, []),
        ("s/inspect/two", "s: two", {0: "own.safetensors"}, ("digits", "crop"), "s/inspect/one", []),
    ]
    monkeypatch.setattr("vitexp.study.networks.read_networks", lambda *_: groups)
    assert look("--images", "8", out=tmp_path, what="distance decay") == 0
    assert [path.stem for path in tmp_path.rglob("*minus*.csv")] == ["two-minus-one-decay"]
    assert "s: two: no difference in distance: the baseline was measured on other images" in capsys.readouterr().out


def test_images_are_seen_as_the_run_saw_them(study, tmp_path):
    """A record's view of the test images is handed on."""
    (run,) = study.glob("runs/inside/*1d*/seed-0")
    shutil.copytree(run, tmp_path / "seed-0", ignore=shutil.ignore_patterns("wandb"))
    record = read_record(run)
    config = record.config | {"data": record.config["data"] | {"eval_view": "crop"}}
    write_record(replace(record, config=config), tmp_path / "seed-0")
    ((*_, images, _, marks),) = read_networks([str(tmp_path / "seed-0")], "runs")
    assert (images, len(marks)) == (("digits", "crop"), 1)
    assert images_of(*images, 8).eval_view == "crop"


def test_runs_and_studies_overwrite_nothing_of_each_other(study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(study)
    runs = [str(path) for path in sorted(study.glob("runs/inside/*/seed-0"))]
    words = ["--images", "16", "--out", str(tmp_path), "--what", "filters", "cka"]
    assert cli.main(["inspect", "sweep.yaml", *runs, *words]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # two arms and two runs with two pictures each, and one difference: cka
    assert len(files) == 3 * (2 * 2 + 2 * 2 + 1)
    assert (tmp_path / "inside/inspect/pos_embed-1d-seed-0-filters.png").exists()
    assert "Written: 9 files" in capsys.readouterr().out


def test_a_study_without_finished_runs_or_weights_is_refused(study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(study)
    assert cli.main(["inspect", "sweep.yaml", "--root", str(tmp_path)]) == cli.BAD_INPUT
    assert "holds no finished run of sweep.yaml" in capsys.readouterr().err
    (run, *_) = study.glob("runs/inside/*/seed-1")
    shutil.copytree(run, tmp_path / "bare/cell/seed-1", ignore=shutil.ignore_patterns("checkpoints", "wandb"))
    assert cli.main(["inspect", str(tmp_path / "bare/cell/seed-1")]) == cli.BAD_INPUT
    assert "holds no checkpoints/last.ckpt; give a run that kept its weights" in capsys.readouterr().err
    assert cli.main(["inspect", str(tmp_path)]) == cli.BAD_INPUT


@pytest.mark.filterwarnings("ignore:Glyph")  # the pictures' font has no such letters; their files and labels do
def test_files_of_any_study_have_names_that_systems_take(study, tmp_path, monkeypatch):
    """Names of arms may be long, in any script, and alike but for signs."""
    monkeypatch.chdir(tmp_path)
    long = [f"{'very_' * 30}long_{end}" for end in "ab"]
    (run,) = study.glob("runs/inside/*1d*/seed-0")
    for at, shards in enumerate([*long, "数字", "字数"]):
        folder = tmp_path / f"runs/names/cell-{at}/seed-0"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb"))
        record = read_record(folder)
        config = record.config | {"data": record.config["data"] | {"shards": shards}}
        write_record(replace(record, study="names", config=config, data=record.data | {"name": shards}), folder)
    assert cli.main(["inspect", "runs/names", "--what", "filters", "--data", str(study / "shards/digits")]) == 0
    files = list((tmp_path / "results/names/inspect").iterdir())
    assert len(files) == 4 * 3
    assert max(len(path.name.encode()) for path in files) < 120
