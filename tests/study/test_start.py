"""Starts of real networks, made by the real door; only the study's cells are planned in this process."""

import re

import pytest
import yaml

from vitexp import cli
from vitexp.study.lint import arms_of, compare_starts, partner_of, starts
from vitexp.study.resolve import resolved_cell
from vitexp.study.run.processes import preload
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
                mine, base = (cli.examine(argv)["start"] for argv in ([*cell.argv, *changed], partner.argv))
                made.append(compare_starts(study, arm, (cell, mine), (partner, base)))
        return made

    return make


def test_arms_of_one_seed_share_what_they_can(compared):
    (none, nothing), (every, nothing_either) = compared(
        {"model": [{"pos_embed": e, "pos_at": a} for e, a in (("1d", "stem"), ("none", "stem"), ("1d", "every"))]},
        {"model.pos_embed": "1d", "model.pos_at": "stem"},
    )
    assert [*nothing, *nothing_either] == []
    assert "its own" not in none
    assert "; its own: position.tables.1, position.tables.2, position.tables.3; " in every
    said = re.match(
        r"start of model.pos_at=every model.pos_embed=1d: (\d+) of (\d+) parameters shared with the ", every
    )
    assert int(said[1]) == int(said[2]) - 3
    assert re.search(r"the same order of images \(\w{8}\)$", every)
    one, other = (re.search(r", all equal \((\w{8})\)", line)[1] for line in (none, every))
    assert one != other


def test_a_parameter_of_another_shape_is_an_arms_own(compared):
    ((wide, found),) = compared({"model.pool": ["cls", "gap"]}, {"model.pool": "cls"})
    assert "; its own: position.tables.0; " in wide
    assert found == []


def test_another_scale_of_the_positions_is_a_note_and_not_another_draw(compared):
    ((line, found),) = compared({"model.pos_std": [0.02, 0.5]}, {"model.pos_std": 0.02})
    assert "1 of them unequal" in line
    assert [finding.severity for finding in found] == ["note"]
    assert found[0].text.startswith("initial weights differ in position.tables.0: scaled by model.pos_std (")


def test_another_draw_another_order_and_other_views_are_errors(compared):
    ((line, found),) = compared({"model.pos_embed": ["1d", "none"]}, {"model.pos_embed": "1d"}, ["--seed_everything=5"])
    texts = [finding.text for finding in found]
    assert [finding.severity for finding in found] == ["error"] * 3
    assert texts[0].startswith("initial weights differ in stem.embedding.weight, ")
    assert texts[0].endswith(" more, though names and shapes agree ('pos_embed=none' against 'pos_embed=1d')")
    orders = re.match(r"the first epoch's order of images differs: (\w{12,}), but (\w{12,}) in the baseline", texts[1])
    assert orders[1] != orders[2]
    assert "augment none, mix none, 8 pixels, seed 5, but augment none, mix none, 8 pixels, seed 0" in texts[2]
    assert "of them unequal" in line
    assert line.endswith(f"another order of images ({orders[1][:8]})")


def test_a_constant_that_an_option_sets_is_a_note(compared):
    ((line, (found,)),) = compared({"model.head_bias": [0.0, -3.0]}, {"model.head_bias": 0.0})
    assert (found.severity, "1 of them unequal (" in line) == ("note", True)
    assert found.text.startswith("initial weights differ in head.bias: constants set by an option")


def test_arms_that_differ_in_their_data_have_other_orders(compared):
    ((line, found),) = compared({"data.batch_size": [50, 75]}, {"data.batch_size": 50})
    assert "; another order of images" in line
    assert found == []


def test_a_study_compares_each_arm_at_its_first_seed(trainer, study, tmp_path):
    made = study(seeds=(1, 0), **{"model.lr": {"values": [0.1, 0.2]}, "study.baseline": {"value": {"model.lr": 0.1}}})
    planned = []
    for cell in made.cells():
        path = tmp_path / f"{cell.index}.json"
        path.write_text(cell.args_json)
        argv = [*made.argv(cell, path), "--run.root", str(tmp_path)]
        planned.append(resolved_cell(cell, argv, trainer.parse(argv)))
    preload(["vitexp.record"])
    ((line, (found,)),) = starts(made, planned, examine=trainer.examine)
    assert line.startswith("start of model.lr=0.2: 0 of 0 parameters shared")
    assert found.text == (
        "the first epoch's order of images differs: 0 0.2, but 0 0.1 in the baseline "
        "('lr=0.2 seed=0' against 'lr=0.1 seed=0')"
    )
    with pytest.raises(ValueError, match=r"the start of cell 'lr=0\.[12] seed=0' cannot be made: KeyError: 'start'"):
        starts(made, planned, examine=trainer.broken)
