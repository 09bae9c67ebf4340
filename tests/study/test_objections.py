"""What the runs cannot show is not decided, and the line says why."""

import pytest

from vitexp.study.claims.verdicts import CONTRADICT, DIFFER, SUPPORT, UNDECIDED, read_verdicts

SEEDS = [0, 1, 2, 3, 4]
WIGGLE = [0.0, 0.01, 0.02, 0.01, 0.0]
TRAINED = {"train_loss_start": 2.3, "train_loss_end": 0.4}
RISING = {"val_acc": [(70, 0.5), (140, 0.6), (210, 0.75)]}
LEVEL = {"val_acc": [(70, 0.5), (140, 0.74), (210, 0.75)]}


def kinds(lab, level_of, *, settings=None, changes=lambda kind, seed: {}, config=None, spread=0.001):
    """A study of networks with and without positions; `changes` are those to the record of a kind and seed."""
    named = {"study.name": "kinds", "study.margin": 0.01, **(settings or {})}
    study = lab.study(named, {"model.pos_embed": list(level_of), "seed_everything": SEEDS})
    for cell in study.cells():
        kind, seed = cell.overrides["model.pos_embed"], cell.seed
        value = level_of[kind] + WIGGLE[seed] + spread * (seed % 3) * (kind == "1d")
        given = {"metrics": {"test_acc": value}, "steps": 210, "learning": TRAINED, "curves": LEVEL}
        lab.run(cell, study="kinds", config=config, **{**given, **changes(kind, seed)})
    return {line.claim.name: line for line in read_verdicts(study, lab.root)}


def one(kind, seed, **changed):
    return lambda this, number: changed if (this, number) == (kind, seed) else {}


@pytest.mark.parametrize(
    ("levels", "more", "cause"),
    [
        ({"none": 0.10, "1d": 0.11}, {}, "not trained: no arm is better than guessing in test_acc"),
        (
            {"none": 0.8, "1d": 0.9},
            {"changes": one("none", 2, learning={"train_loss_start": 2.3, "train_loss_end": 2.31})},
            "not trained: pos_embed=none (1 of 5 runs, 20 %, 95 % interval 1 to 72 %; left out; seed 2: training loss",
        ),
        ({"none": 0.8, "1d": 0.9}, {"changes": lambda *_: {"steps": 42}}, "too short: pos_embed=none seed 0 (42 steps"),
        ({"none": 0.8, "1d": 0.9}, {"config": {"model.warmup_steps": 300}}, "(210 steps, all of them warm-up)"),
        ({"none": 0.8, "1d": 0.9}, {"changes": lambda *_: {"curves": RISING}}, "rose by 15.0 points in the last quart"),
        ({"none": 0.95, "1d": 0.96}, {}, ""),
        ({"none": 0.985, "1d": 0.99}, {}, "ceiling: every arm reaches 99.30 % or more in test_acc"),
        (
            {"none": 0.8, "1d": 0.9},
            {"changes": one("none", 1, steps=150)},
            "unequal training: the runs took 150 to",
        ),
        ({"none": 0.8, "1d": 0.9}, {}, ""),
    ],
)
def test_what_cannot_be_decided_is_said_with_its_cause(lab, levels, more, cause):
    line = kinds(lab, levels, **more)["no positions"]
    assert (line.verdict, cause in line.objection) == (UNDECIDED if cause else SUPPORT, True)
    assert {judged.verdict for judged in line.judged} == {line.verdict}
    assert bool(line.objection) == bool(cause)


def test_likeness_at_the_ceiling_within_the_margin_decides_nothing(lab):
    line = kinds(lab, {"1d": 0.965, "2d": 0.965}, settings={"study.margin": 0.04})["kinds alike"]
    assert line.verdict == UNDECIDED
    assert line.objection.startswith("ceiling: every arm reaches 97.")


def test_arms_of_other_settings_are_not_compared(lab):
    study = lab.study({"study.name": "kinds"}, {"model.pos_embed": ["none", "1d"], "seed_everything": SEEDS})
    for cell in study.cells():
        kind = cell.overrides["model.pos_embed"]
        config = {"data.batch_size": {"none": 64, "1d": 128}[kind]}
        value = {"none": 0.8, "1d": 0.9}[kind] + WIGGLE[cell.seed]
        lab.run(cell, {"test_acc": value}, study="kinds", config=config)
    (line,) = read_verdicts(study, lab.root)
    assert line.verdict == UNDECIDED
    assert line.objection == "confounded: pos_embed=none and pos_embed=1d also differ in data.batch_size"


def test_a_verdict_is_that_of_the_whole_family(lab):
    """Beside other contrasts one that is barely shown by itself is not shown."""
    noise = {
        "none": [0.0, 0.9, -0.8, 0.3, -0.4],
        "1d": [0.4, -0.9, 0.1, 0.9, -0.5],
        "2d": [0.8, -0.1, 0.4, -0.8, -0.3],
        "relative": [-0.4, 0.8, -0.6, 0.9, -0.7],
    }
    shift = {"none": 0.0, "1d": 0.0115, "2d": 0.0, "relative": 0.0}
    study = lab.study({"study.name": "kinds"}, {"model.pos_embed": list(noise), "seed_everything": SEEDS})
    for cell in study.cells():
        kind = cell.overrides["model.pos_embed"]
        lab.run(cell, {"test_acc": 0.8 + shift[kind] + 0.01 * noise[kind][cell.seed]}, study="kinds")
    line = next(line for line in read_verdicts(study, lab.root) if line.claim.name == "no positions")
    first = line.judged[0].judgement
    assert first.p <= 0.05 < first.p_adjusted
    assert line.judged[0].verdict == line.verdict == UNDECIDED


@pytest.mark.parametrize(
    ("data", "arch", "verdict"),
    [
        ("digits", "B/16", DIFFER),
        ("JFT-300M", "micro/2", DIFFER),
        ("JFT-300M", "B/16", CONTRADICT),
    ],
)
def test_only_the_papers_own_protocol_can_contradict_the_paper(lab, data, arch, verdict):
    facts = {"name": data, "classes": 10, "test_images": 360}
    lines = kinds(lab, {"none": 0.9, "1d": 0.8}, config={"model.arch": arch}, changes=lambda *_: {"data": facts})
    assert lines["no positions"].verdict == verdict


@pytest.mark.parametrize(
    ("rates", "best", "cause"),
    [
        ([0.001], 0.001, "not tuned: model.lr was not tuned in each arm"),
        ([0.001, 0.003, 0.01], 0.01, "end of the grid: the best value may lie beyond it in pool=cls (model.lr 0.01 of"),
        ([0.001, 0.003, 0.01], 0.003, ""),
    ],
)
def test_tuned_is_what_was_chosen_from_within_a_grid(lab, rates, best, cause):
    settings = {"study.name": "pool", "study.margin": 0.02, "study.tune": ["model.lr"]}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "model.lr": rates, "seed_everything": SEEDS})
    for cell in study.cells():
        level = 0.9 if cell.overrides["model.lr"] == best else 0.7
        value = level + WIGGLE[cell.seed] + 0.001 * (cell.seed % 2) * (cell.overrides["model.pool"] == "gap")
        lab.run(cell, {"test_acc": value, "val_acc": value}, study="pool")
    (line,) = read_verdicts(study, lab.root)
    assert (line.verdict, cause in line.objection) == (UNDECIDED if cause else SUPPORT, True)


def test_one_rate_for_each_arm_is_no_tuning(lab):
    settings = {"study.name": "pool", "study.margin": 0.02, "study.tune": ["model.lr"]}
    pairs = [{"pool": "cls", "lr": 0.003}, {"pool": "gap", "lr": 0.001}]
    study = lab.study(settings, {"model": pairs, "seed_everything": SEEDS})
    lab.fill(study, lambda cell: {"test_acc": 0.9 + WIGGLE[cell.seed], "val_acc": 0.9})
    (line,) = read_verdicts(study, lab.root)
    assert line.verdict == UNDECIDED
    assert line.objection.startswith("not tuned: model.lr has a single value in pool=cls, pool=gap")
