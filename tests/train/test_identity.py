import pytest

from vitexp import cli
from vitexp.neutral import NEUTRAL
from vitexp.record import fingerprint, flatten
from vitexp.train.config import RunConfig
from vitexp.train.identity import identify, slug

MODEL = {"arch": "R50+B/16", "pos_embed": "1d", "pos_at": "stem", "pool": "cls", "attention": "full", "lr": 0.1}
MODEL |= {"stem": "auto", "objective": "classify"}
DATA = {"shards_fingerprint": "abc", "subset_fingerprint": "def"}


def plan(parsed=None, model=MODEL, data=DATA, **run):
    parsed = {"seed_everything": 3, "trainer": {"max_epochs": 2, "profiler": None}, "data": {}} | (parsed or {})
    return identify(parsed, model, data, RunConfig(**run), "study")


def test_the_folder_is_root_study_cell_seed():
    made = plan(root="r")
    assert made.directory.parts == ("r", "study", made.cell, "seed-3")
    assert made.cell.startswith("R50+B-16-1d-stem-cls-")


def test_a_folder_of_ones_own_wins():
    assert str(plan(dir="mine").directory) == "mine"


def test_an_option_left_unset_changes_nothing():
    more = {"trainer": {"max_epochs": 2, "an_option_of_a_later_release": None}}
    assert plan(more).fingerprint == plan().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"parsed": {"trainer": {"max_epochs": 3}}},
        {"model": MODEL | {"lr": 0.2}},
        {"data": DATA | {"subset_fingerprint": "other"}},
        {"data": DATA | {"shards_fingerprint": "other"}},
    ],
)
def test_what_changes_the_result_changes_the_fingerprint(change):
    assert plan(**change).fingerprint != plan().fingerprint


def test_where_it_runs_and_where_it_writes_changes_nothing():
    assert plan({"config": ["a.yaml"]}, root="elsewhere", wandb="off").fingerprint == plan().fingerprint


def test_a_slug_suits_a_folder():
    model = MODEL | {"arch": "H/14", "pos_embed": "2d", "pos_at": "every", "pool": "gap"}
    assert slug(model) == "H-14-2d-every-gap"
    assert slug(model | {"attention": "axial"}) == "H-14-2d-every-gap-axial"
    assert slug(model | {"arch": "R50x1", "resnet": "postact"}) == "R50x1-postact"
    assert slug(model | {"arch": "B/16", "stem": "resnet50"}) == "R50+B-16-2d-every-gap"
    assert slug(model | {"objective": "masked_mean"}) == "H-14-2d-every-gap-masked-mean"


@pytest.mark.parametrize(
    ("init", "name"),
    [
        ("runs/pretrain_tiny/last/checkpoints/last.ckpt", "pretrain-tiny"),
        ("/far/runs/pos/B-16-1d-ab12/seed-2/checkpoints/last.ckpt", "B-16-1d-ab12"),
        ("../ViT-B_16.npz", "ViT-B-16"),
        ("timm:vit_base_patch16_224.augreg_in21k", "timm-vit-base-patch16-224.augreg-in21k"),
    ],
)
def test_a_transfer_is_named_by_whose_weights_it_begins_with(init, name):
    assert slug(MODEL, init) == f"R50+B-16-1d-stem-cls-from-{name}"


EXPERIMENT = ["fit", "--config=experiments/pos_ablation.yaml"]
WAS = {
    (): "1c5b3727073d",
    ("--trainer.max_epochs=3", "--model.warmup_steps=30"): "be7b8253fa26",
    ("--trainer.precision=bf16-mixed",): "2e792023f6dd",
    ("--trainer.limit_val_batches=2",): "c322c76e4c7d",
    ("--trainer.accumulate_grad_batches=2", "--model.warmup_steps=30"): "4fe2e6dc45b0",
    ("--seed_everything=4", "--model.pos_embed=2d"): "d52f420ed96c",
}
"""Fingerprints of the time when callbacks did not count."""
DIGITS = {"content": "e0462d8972f937c6", "subset": "568c4c13c21ecc8b"}


def resolved(*words):
    config = cli.plan([*EXPERIMENT, *words])["config"]
    return config | {"data": config["data"] | DIGITS}


@pytest.mark.parametrize("words", WAS, ids=str)
def test_runs_of_before_keep_their_fingerprints(words):
    assert fingerprint(resolved(*words)) == WAS[words]


def test_every_option_of_a_resolved_config_counts_unless_the_table_names_it():
    config = resolved("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_acc")
    flat = flatten(config)
    assert len(flat) > 60
    blind = {key for key in flat if fingerprint(flat | {key: "something else"}) == fingerprint(flat)}
    assert blind == {key for key in flat if key in NEUTRAL or key.startswith("study.")}
    assert not {"model.weight_decay", "model.clip_norm", "trainer.callbacks", "trainer.max_epochs"} & blind
