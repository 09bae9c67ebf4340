import copy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vitexp.record import fingerprint
from vitexp.study.lint import costs, lint, partner_of
from vitexp.study.resolve import resolved_cell
from vitexp.study.spec import read_study


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import trainer

    return trainer


@pytest.fixture
def plan(trainer, tmp_path):
    """The cells of a small study, resolved by the door of trainer.py."""

    def make(seeds=(0, 1, 2), settings=None, **swept):
        settings = {"name": "s", "baseline": {"model.lr": 0.1}} | (settings or {})
        parameters = {f"study.{name}": {"value": value} for name, value in settings.items()}
        parameters |= {"model.lr": {"values": [0.1, 0.2]}, "seed_everything": {"values": list(seeds)}} | swept
        command = ["vitexp", "fit", "--config", "${args_json_file}"]
        (tmp_path / "sweep.yaml").write_text(
            yaml.safe_dump({"method": "grid", "command": command, "parameters": parameters})
        )
        study = read_study(tmp_path / "sweep.yaml")
        planned = []
        for cell in study.cells():
            path = tmp_path / f"{cell.index}.json"
            path.write_text(cell.args_json)
            argv = [*study.argv(cell, path), "--run.root", str(tmp_path)]
            planned.append(resolved_cell(cell, argv, trainer.parse(argv)))
        return study, planned

    return make


def texts(findings, severity=None):
    return [finding.text for finding in findings if severity in (None, finding.severity)]


def with_config(cell, key, value):
    """The cell as another door would resolve it."""
    config = copy.deepcopy(cell.config)
    group, _, name = key.rpartition(".")
    config.setdefault(group, {})[name] = value
    return replace(cell, config=config, fingerprint=fingerprint(config))


def test_a_controlled_study_has_no_findings(plan):
    assert lint(*plan()) == []


def test_what_differs_from_the_baseline_beyond_the_factors_is_an_error(plan):
    study, planned = plan()
    planned = [with_config(c, "data.batch_size", 64 if c.overrides["model.lr"] == 0.2 else 128) for c in planned]
    (found,) = lint(study, planned)
    assert found.severity == "error"
    assert found.text.startswith(
        "data.batch_size is 64, but 128 in the baseline, and no factor of the study ('lr=0.2 seed=0'"
    )


def test_what_cannot_change_a_result_may_differ(plan):
    study, planned = plan()
    assert lint(study, [with_config(c, "data.workers", c.index) for c in planned]) == []


def test_a_cell_is_compared_with_the_baseline_of_its_own_data_size_and_seed(plan):
    study, planned = plan(**{"data.train_images": {"values": [100, 200]}})
    derived = [with_config(c, "data.subset", f"{c.seed}-{c.overrides['data.train_images']}") for c in planned]
    assert lint(study, derived) == []
    wrong = [with_config(c, "data.subset", f"{c.index}") for c in planned]
    assert len(texts(lint(study, wrong), "error")) == 6


def test_images_that_follow_the_seed_may_differ_between_seeds_and_not_within_one(plan):
    study, planned = plan()
    baseline = next(c for c in planned if partner_of(c, study, planned) is c)
    fewer = [c for c in planned if c is not baseline]  # one arm meets the baseline of another seed
    drawn = [with_config(c, "data.subset", c.seed) for c in fewer]
    follows = [with_config(c, "data.subset_seed", "follow") for c in drawn]
    about = [[text for text in texts(lint(study, cells), "error") if "data.subset" in text]
             for cells in (drawn, follows)]  # fmt: skip
    assert [len(found) for found in about] == [1, 0]
    wrong = [with_config(c, "data.subset", f"{c.index}") for c in follows]
    assert any("data.subset is" in text for text in texts(lint(study, wrong), "error"))


def test_a_study_of_data_sizes_is_not_reproached_for_its_data(plan):
    study, planned = plan(
        settings={"baseline": {"data.train_images": 100}}, **{"data.train_images": {"values": [100, 200]}}
    )
    derived = [
        replace(with_config(c, "data.subset", c.overrides["data.train_images"]), facts={"steps": c.index})
        for c in planned
    ]
    assert lint(study, derived) == []


@pytest.mark.parametrize("key", ["trainer.max_epochs", "trainer.max_steps"])
def test_a_study_of_lengths_is_not_reproached_for_its_steps(plan, key):
    study, planned = plan(settings={"baseline": {key: 1}}, **{key: {"values": [1, 2]}})
    longer = [replace(c, facts={"steps": 5 * c.overrides[key], "images_seen": c.overrides[key]})
              for c in planned]  # fmt: skip
    assert lint(study, longer) == []
    drawn = [with_config(c, "data.subset", c.overrides[key]) for c in longer]
    assert len(texts(lint(study, drawn), "error")) == 1


def test_facts_known_beforehand_are_compared_too(plan):
    study, planned = plan()
    facts = [
        {
            "parameters": 10 + (c.overrides["model.lr"] == 0.2),
            "steps": 5,
            "images_seen": 9,
            "train_flops": 1e12 * c.index,
        }
        for c in planned
    ]
    planned = [replace(c, facts=f) for c, f in zip(planned, facts, strict=True)]
    assert texts(lint(study, planned), "error") == []
    assert texts(lint(study, planned), "note")[0].startswith("11 parameters, but 10 in the baseline ('lr=0.2 seed=0'")
    assert costs(study, planned) == [
        "model.lr=0.1: 3 runs of 5 steps, 9 images, 0 TFLOP; 10 parameters",
        "model.lr=0.2: 3 runs of 5 steps, 9 images, 3 TFLOP; 11 parameters",
        "all together: 6 runs, 30 steps, 15 TFLOP",
    ]


def test_the_same_run_twice_is_an_error(plan):
    study, planned = plan(**{"run.project": {"values": ["a", "b"]}})
    found = texts(lint(study, planned), "error")
    assert len(found) == 6
    assert (
        found[0]
        == "cells are one and the same run; take a value out ('lr=0.1 project=a seed=0', 'lr=0.1 project=b seed=0')"
    )


def test_a_missing_seed_is_named_with_its_arm(plan):
    study, planned = plan()
    missing = [c for c in planned if (c.overrides["model.lr"], c.seed) != (0.2, 1)]
    assert texts(lint(study, missing), "error") == ["arm model.lr=0.2 lacks seeds 1, which other arms have"]


def test_too_few_seeds_are_noted(plan):
    assert texts(lint(*plan(seeds=(0, 4)))) == ["the study has 2 seeds (0, 4); under 3 nothing can be concluded"]
    assert texts(lint(*plan(seeds=(7,)))) == ["the study has 1 seed (7); under 3 nothing can be concluded"]


def test_a_value_that_did_not_arrive_is_noted(plan):
    study, planned = plan(**{"model.seconds": {"value": 3}})
    changed = [with_config(c, "model.seconds", 0.0) for c in planned]
    (found,) = lint(study, changed)
    assert found.text.startswith("model.seconds is given as 3 and resolved to 0.0 ('lr=0.1 seed=0', ")
    assert found.text.endswith(" and 3 more)")


def test_arms_are_tuned_over_equally_many_settings(plan):
    blocks = [{"trouble": "none", "seconds": s} for s in (0.0, 0.1)] + [{"trouble": "nan", "seconds": 0.0}]
    settings = {"baseline": {"model.trouble": "none"}, "tune": ["model.seconds"]}
    study, planned = plan(settings=settings, model={"values": blocks}, **{"model.lr": {"value": 0.1}})
    assert texts(lint(study, planned), "error") == [
        "arm model.trouble=nan is tuned over 1 settings, another one over 2; give all equally many"
    ]
