"""Sweeps in which an arm differs in another option besides the one that it is about, and sweeps that look like it."""

from pathlib import Path

import pytest
import yaml

from vitexp.nn.pos_embed import POSITIONS
from vitexp.record import fingerprint, flatten
from vitexp.study.comparison import _NOT_LEARNED
from vitexp.study.lint import confounding
from vitexp.study.resolve import ResolvedCell
from vitexp.study.spec import read_study

COMMAND = ["${env}", "vitexp", "fit", "--config", "${args_json_file}"]
BASE = {
    "model.lr": 1e-3, "model.pos_embed": "1d", "model.pos_at": "stem", "model.warmup_steps": 10,
    "model.arch": "micro/4", "data.batch_size": 128, "data.augment": "none", "trainer.max_epochs": 10,
}  # fmt: skip
SHIPPED = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


def planned(study, base):
    resolved = [base | cell.overrides for cell in study.cells()]
    return [
        ResolvedCell(**vars(cell), argv=[], fingerprint=fingerprint(config), name="", run_directory="", config=config)
        for cell, config in zip(study.cells(), resolved, strict=True)
    ]


@pytest.fixture
def confounds(tmp_path):
    def find(parameters, settings=None, **top):
        fixed = {"name": "s", "baseline": {"model.pos_embed": "1d"}} | (settings or {})
        grid = {f"study.{name}": {"value": value} for name, value in fixed.items()}
        grid |= {"seed_everything": {"values": [0, 1, 2]}} | parameters
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"method": "grid", "command": COMMAND, "parameters": grid} | top))
        study = read_study(path)
        return [finding.text for finding in confounding(study, planned(study, BASE))]

    return find


SLOPE = "model.options.pos_embed.slope"
OWN = {"model.pos_embed": "ideas:Alibi2D", SLOPE: 2}


def test_the_options_of_an_own_part_belong_to_its_axis(confounds):
    assert confounds({"arm": {"values": [{"model.pos_embed": "1d"}, OWN, OWN | {SLOPE: 3}]}}) == []
    found = confounds({"arm": {"values": [{"model.pos_embed": "1d"}, OWN | {"model.lr": 1e-2}]}})
    assert [text for text in found if "model.lr never" in text or "model.lr and" in text]
    pairs = {"together": [["model.pos_embed", "model.lr"]]}
    assert confounds({"arm": {"values": [{"model.pos_embed": "1d"}, OWN | {"model.lr": 1e-2}]}}, pairs) == []


def blocks(name, *values):
    return {name: {"values": list(values)}}


ONE_ARM_DIFFERS_IN = [
    ("data.batch_size", 64), ("model.warmup_steps", 0), ("trainer.max_epochs", 20), ("data.augment", "crop"),
    ("model.lr", 3e-3), ("model.weight_decay", 0.1), ("model.pool", "gap"), ("trainer.precision", "bf16-mixed"),
    ("data.subset_seed", 7), ("run.init", "runs/x.ckpt"), ("data.shards", "shards/other"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ONE_ARM_DIFFERS_IN)
@pytest.mark.parametrize("kinds", [("none",), ("none", "2d", "relative")])
def test_an_arm_that_differs_in_something_else_too_is_an_error(confounds, key, value, kinds):
    arms = [{"model.pos_embed": kind} for kind in ("1d", *kinds)]
    arms[1] |= {key: value}
    (found,) = confounds(blocks("arm", *arms))
    assert key in found
    assert "model.pos_embed" in found
    assert "study.together: {value: [[" in found


@pytest.mark.parametrize(
    "parameters",
    [
        blocks("model", {"pos_embed": "1d", "lr": 1e-3}, {"pos_embed": "none", "lr": 3e-3}),
        blocks("model", {"pos_embed": "1d"}, {"pos_embed": "none", "lr": 3e-3}),  # the other one has the default
        blocks("model", {"pos_embed": "1d", "pos_at": "stem"}, {"pos_embed": "2d", "pos_at": "every"}),
        blocks(
            "arm", *({"model": {"pos_embed": k}, "data": {"batch_size": b}} for k, b in (("1d", 128), ("none", 64)))
        ),
        {"model": {"parameters": {"pos_embed": {"values": ["1d", "none"]}}}}
        | blocks("data", {"train_images": 100, "batch_size": 16}, {"train_images": 200, "batch_size": 32}),
        # each factor changes alone among other arms, but never in the comparison that the study makes
        blocks("model", *({"pos_embed": k, "lr": lr} for k, lr in (("1d", 1), ("none", 3), ("2d", 1), ("2d", 3)))),
    ],
)
def test_whatever_the_spelling_of_the_arms(confounds, parameters):
    (found,) = confounds(parameters)
    assert "they go together" in found


def test_three_options_that_change_together_are_named_together(confounds):
    arms = [dict(zip(("model.pos_embed", "model.lr", "data.batch_size"), v, strict=True)) for v in
            (("1d", 1, 32), ("none", 2, 64), ("2d", 3, 96))]  # fmt: skip
    (found,) = confounds(blocks("arm", *arms))
    assert found.startswith("data.batch_size and model.lr and model.pos_embed never change alone, but with each other")
    assert confounds(blocks("arm", *arms), {"together": [["data.batch_size", "model.lr", "model.pos_embed"]]}) == []
    assert confounds(blocks("arm", *arms), {"tune": ["model.lr"]})[0].startswith("data.batch_size and model.pos_embed")


def test_without_a_baseline_the_factors_are_compared_all_the_same(confounds):
    arms = blocks("arm", {"model.pos_embed": "1d"}, {"model.pos_embed": "none", "model.lr": 1})
    assert confounds(arms, {"baseline": {}, "rows": ["model.pos_embed"]})


@pytest.mark.parametrize(
    "parameters",
    [
        blocks("model.pos_embed", "1d", "none", "2d"),
        blocks("model.pos_embed", "1d", "none") | blocks("data.batch_size", 32, 64) | blocks("model.lr", 1, 2, 3),
        blocks("model.pos_embed", "1d", "none") | blocks("run.project", "a", "b"),  # no number comes from it
        # cells that cannot exist otherwise
        blocks("model", {"pos_embed": "none"}, {"pos_embed": "1d", "pos_at": "every"}),
        blocks("model", {"pos_embed": "1d", "pos_at": "every"}, {"pos_embed": "relative", "pos_at": "stem"}),
        blocks(
            "model", {"pos_embed": "none"}, {"pos_embed": "1d", "pos_std": 0.5}, {"pos_embed": "2d", "pos_std": 0.5}
        ),
        # a chain of arms leads from one to the other
        blocks(
            "model",
            {"pos_embed": "1d", "pos_at": "stem"},
            {"pos_embed": "2d", "pos_at": "stem"},
            {"pos_embed": "2d", "pos_at": "every"},
        ),
    ],
)
def test_factors_that_the_arms_separate_are_fine(confounds, parameters):
    assert confounds(parameters) == []


def test_a_resnet_has_no_choice_of_stem_and_positions(confounds):
    vit = {"model.arch": "micro/4", "model.stem": "patch", "model.pos_embed": "2d", "model.pool": "gap"}
    resnet = {"model.arch": "R14x0.5", "model.stem": "auto"}
    settings = {"baseline": {"model.arch": "R14x0.5"}}
    assert confounds(blocks("arm", vit, resnet), settings) == []
    assert confounds(blocks("arm", vit | {"model.stem": "resnet50", "model.arch": "micro/16"}, vit, resnet), settings)


def test_the_positions_that_learn_nothing_are_those_of_the_network():
    assert set(_NOT_LEARNED) == {word for word, kind in POSITIONS.items() if not kind.own_std(1)}


def test_a_random_search_draws_its_parameters_independently_but_not_the_options_of_one(confounds):
    free = {"model.lr": {"min": 0.1, "max": 0.2}, "model.weight_decay": {"min": 0.1, "max": 0.2}}
    settings = {"baseline": {}}
    assert confounds(free, settings, method="random", run_cap=5) == []
    tied = blocks("model", {"pos_embed": "1d", "pool": "cls"}, {"pos_embed": "none", "pool": "gap"})
    (found,) = confounds(free | tied, settings, method="random", run_cap=8)
    assert found.startswith("model.pool and model.pos_embed never change alone")


@pytest.mark.parametrize(
    ("together", "sentence"),
    [
        (["model.lr"], "together is 'model.lr', which is not a list"),
        ([["model.lr"]], "give a list of lists of two or more dotted keys"),
        ("model.lr", "together is 'model.lr', which is not a list"),
        ([["model.lr", "model.pos_embed"], ["model.lr", "data.x"]], "names model.lr twice"),
        ([["model.pos_embed", "data.x"]], "study.together names data.x, which no parameter sets"),
    ],
)
def test_what_goes_together_is_checked(confounds, together, sentence):
    with pytest.raises(ValueError, match=sentence):
        confounds(blocks("model.pos_embed", "1d", "none") | blocks("model.lr", 1, 2), {"together": together})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_sweep_separates_its_factors(path):
    study = read_study(path)
    if study.method != "bayes":
        assert confounding(study, planned(study, {})) == []
        assert set(study.factors) <= set().union(*(flatten(cell.config) for cell in planned(study, {})))


def test_a_confounded_study_does_not_train(study, run, ground):
    made = study(model={"values": [{"lr": 0.1, "seconds": 0.0}, {"lr": 0.2, "seconds": 0.1}]})
    with pytest.raises(ValueError, match=r"sweep\.yaml: model\.lr and model\.seconds never change alone"):
        run(made)
    assert ground.folders() == []
