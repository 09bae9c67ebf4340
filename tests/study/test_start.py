"""Starts of real networks, made by the real door; only the study's cells are planned in this process."""

import re

import pytest
import yaml

from vitexp import cli
from vitexp.study.lint import Start, arms_of, partner_of, starts
from vitexp.study.resolve import resolved_cell
from vitexp.study.run.worker import preload
from vitexp.study.spec import read_study

FIXED = {"model.arch": "micro/4", "data.train_images": 150, "trainer.max_epochs": 1}


@pytest.fixture
def compared(tmp_path):
    """Each arm of a study beside its partner; `changed` words go to the arms alone."""

    def make(swept, baseline, changed=()):
        parameters = {"study.name": {"value": "s"}, "study.baseline": {"value": baseline}}
        parameters |= {key: {"value": value} for key, value in FIXED.items()}
        parameters |= {key: {"values": values} for key, values in swept.items()}
        sweep = {"method": "grid", "parameters": parameters, "command": ["vitexp", "fit", "${args}"]}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        study = read_study(tmp_path / "sweep.yaml")
        argvs = [study.argv(cell, "") for cell in study.cells()]
        planned = [resolved_cell(c, a, cli.plan(a)) for c, a in zip(study.cells(), argvs, strict=True)]
        made = []
        for arm, (cell, *_) in arms_of(study, planned).items():
            partner = partner_of(cell, study, planned)
            if cell is not partner:
                both = [cli.examine(argv)["start"] for argv in ([*cell.argv, *changed], partner.argv)]
                made.append(Start(arm, cell, partner, *both))
        return study, made

    return make


def digest(start):
    return re.search(r"equal \((\w{8})\)", str(start))[1]


def test_arms_of_one_seed_share_what_they_can(compared):
    study, (none, every) = compared(
        {"model": [{"pos_embed": e, "pos_at": a} for e, a in (("1d", "stem"), ("none", "stem"), ("1d", "every"))]},
        {"model.pos_embed": "1d", "model.pos_at": "stem"},
    )
    assert [*none.findings(study), *every.findings(study)] == []
    assert "its own" not in str(none)
    assert "; its own: position.tables.1, position.tables.2, position.tables.3; " in str(every)
    total = len(every.mine["weights"])
    assert str(every).startswith(
        f"start of model.pos_at=every model.pos_embed=1d: {total - 3} of {total} parameters shared with the baseline ("
    )
    assert "all equal (" in str(every)
    assert str(every).endswith(f"the same order of images ({every.base['order'][:8]})")
    assert digest(none) != digest(every)


def test_a_parameter_of_another_shape_is_an_arms_own(compared):
    study, (wide,) = compared({"model.pool": ["cls", "gap"]}, {"model.pool": "cls"})
    assert "; its own: position.tables.0; " in str(wide)
    assert wide.findings(study) == []


def test_another_draw_another_order_and_other_views_are_errors(compared):
    study, (arm,) = compared({"model.pos_embed": ["1d", "none"]}, {"model.pos_embed": "1d"}, ["--seed_everything=5"])
    texts = [finding.text for finding in arm.findings(study)]
    assert [finding.severity for finding in arm.findings(study)] == ["error"] * 3
    assert texts[0].startswith("initial weights differ in stem.embedding.weight, ")
    assert texts[0].endswith(" more, though names and shapes agree ('pos_embed=none' against 'pos_embed=1d')")
    assert texts[1].startswith(
        f"the first epoch's order of images differs: {arm.mine['order']}, but {arm.base['order']}"
    )
    assert "augment none, mix none, 8 pixels, seed 5, but augment none, mix none, 8 pixels, seed 0" in texts[2]
    assert "of them unequal" in str(arm)
    assert "another order of images" in str(arm)


def test_a_constant_that_an_option_sets_is_a_note(compared):
    study, (arm,) = compared({"model.head_bias": [0.0, -3.0]}, {"model.head_bias": 0.0})
    (found,) = arm.findings(study)
    assert (found.severity, "1 of them unequal (" in str(arm)) == ("note", True)
    assert found.text.startswith("initial weights differ in head.bias: constants set by an option")


def test_arms_that_differ_in_their_data_have_other_orders(compared):
    study, (arm,) = compared({"data.batch_size": [50, 75]}, {"data.batch_size": 50})
    assert arm.mine["order"] != arm.base["order"]
    assert arm.findings(study) == []


def test_a_study_compares_each_arm_at_its_first_seed(trainer, study, tmp_path):
    made = study(seeds=(1, 0), **{"model.lr": {"values": [0.1, 0.2]}, "study.baseline": {"value": {"model.lr": 0.1}}})
    planned = []
    for cell in made.cells():
        path = tmp_path / f"{cell.index}.json"
        path.write_text(cell.args_json)
        argv = [*made.argv(cell, path), "--run.root", str(tmp_path)]
        planned.append(resolved_cell(cell, argv, trainer.parse(argv)))
    preload(["vitexp.record"])
    (one,) = starts(made, planned, examine=trainer.examine)
    assert (one.arm, one.cell.label, one.partner.label) == ("model.lr=0.2", "lr=0.2 seed=0", "lr=0.1 seed=0")
    assert (one.mine["order"], one.base["order"]) == ("0 0.2", "0 0.1")
    with pytest.raises(ValueError, match=r"the start of cell 'lr=0\.[12] seed=0' cannot be made: KeyError: 'start'"):
        starts(made, planned, examine=trainer.broken)
