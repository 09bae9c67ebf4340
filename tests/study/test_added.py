"""Seeds that were added when others had been seen: found by the times of the plan and of the records."""

import json

import pytest

from vitexp.stats.planning import error_of_looks
from vitexp.study.run.runner import run_pilot, run_study
from vitexp.study.table import make_table

EARLY, LATE, LATER = "2025-12-31T00:00:00+00:00", "2026-01-01T00:02:00+00:00", "2026-01-01T00:05:00+00:00"
"""Before the runs of the laboratory, which end at 00:01:00; and after them."""


@pytest.mark.parametrize(
    ("after", "error"),
    [((10_000, 20_000), 0.083), ((2000, 4000, 6000, 8000, 10_000), 0.142), (range(3000, 33_000, 3000), 0.193)],
)
def test_looks_at_many_values_err_as_armitage_found(after, error):
    """Armitage, McPherson, Rowe 1969, table 2: two, five and ten looks at equal steps, at 5 % each."""
    assert error_of_looks(tuple(after)) == pytest.approx(error, abs=0.006)


@pytest.mark.parametrize(("most", "error"), [(5, 0.10), (10, 0.16), (20, 0.23)])
def test_a_look_after_each_seed_errs_more_and_more(most, error):
    assert error_of_looks(tuple(range(3, most + 1))) == pytest.approx(error, abs=0.015)


def test_one_look_errs_as_it_says():
    assert error_of_looks((7,)) == pytest.approx(0.05, abs=0.005)


def planned(lab, times, **changes):
    """The position study of which each seed was asked for, started and finished as `times` says."""
    study = lab.positions(seeds=len(times))
    cells = []
    for cell in study.cells():
        asked, started, finished = times[cell.seed]
        acc = 0.9 + 0.01 * (cell.seed % 3) + 0.001 * cell.index
        record = lab.run(cell, {"test_acc": acc, "fewshot_5": acc}, started=started, finished=finished)
        cells.append({"overrides": cell.overrides, "seed": cell.seed, "fingerprint": record.fingerprint, **asked})
    path = lab.root / "pos" / "study.json"
    path.write_text(json.dumps({"cells": cells, **changes}))
    return study


def notes(lab, study):
    return [one for one in make_table(study, lab.root).notes if "would have ended the study" in one]


def at(asked, started, finished):
    return {"planned": asked} if asked is not None else {}, started, finished


FIRST = at(EARLY, EARLY, "2026-01-01T00:01:00+00:00")
ADDED = at(LATE, LATE, "2026-01-01T00:03:00+00:00")


def test_seeds_that_were_asked_for_after_others_had_finished_are_named_with_their_error(lab):
    (note,) = notes(lab, planned(lab, [FIRST] * 3 + [ADDED] * 2))
    assert note.startswith("seeds were added when earlier ones had finished (3, then 5 seeds)")
    assert "it errs in about 9 % of cases and not in 5 %" in note


def test_each_addition_counts(lab):
    again = at(LATER, LATER, LATER)
    (note,) = notes(lab, planned(lab, [FIRST] * 3 + [ADDED] * 2 + [again] * 5))
    assert "(3, then 5, then 10 seeds)" in note


@pytest.mark.parametrize(
    "times",
    [
        [FIRST] * 5,
        [FIRST] * 2 + [ADDED] * 3,  # nobody concludes anything from two
        [FIRST] * 3 + [at(EARLY, LATE, LATER)] * 2,  # cut off and gone on: all were asked for at once
        [at("", EARLY, EARLY)] * 3 + [at(None, LATE, LATER)] * 2,  # a plan that did not note it
        [FIRST] * 3 + [at("2026-01-01T00:00:30+00:00", LATE, LATER)] * 2,  # asked for while the others trained
    ],
)
def test_what_was_asked_for_before_anything_could_be_seen_is_no_addition(lab, times):
    assert notes(lab, planned(lab, times)) == []


def without_plan(lab, seeds):
    """As after runs of cells that the plan does not have."""
    path = lab.root / "pos" / "study.json"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["seed"] not in seeds]
    path.write_text(json.dumps({"cells": cells}))


def test_runs_beside_the_plan_came_when_the_first_of_them_began(lab):
    study = planned(lab, [FIRST] * 3 + [at(None, LATE, LATER), at(None, LATER, LATER)])
    without_plan(lab, {3, 4})
    (note,) = notes(lab, study)
    assert "(3, then 5 seeds)" in note


def test_runs_that_were_made_elsewhere_before_the_plan_are_none(lab):
    """By W&B agents, one after another; then the runner found them."""
    times = [at(LATER, f"2026-01-01T00:00:{10 + n}+00:00", f"2026-01-01T00:00:{11 + n}+00:00") for n in range(5)]
    assert notes(lab, planned(lab, times)) == []
    (lab.root / "pos" / "study.json").unlink()
    assert notes(lab, lab.positions(seeds=5)) == []


def test_arms_that_are_added_are_no_seeds(lab):
    study = planned(lab, [FIRST] * 4)
    path = lab.root / "pos" / "study.json"
    stored = json.loads(path.read_text())
    for cell in stored["cells"]:
        cell["planned"] = LATE if cell["overrides"]["model.pos_embed"] == "none" else EARLY
    path.write_text(json.dumps(stored))
    assert notes(lab, study) == []


def test_a_plan_of_looks_that_was_made_after_some_runs_says_so(lab):
    plan = {"seeds": [0, 1, 2, 3, 4], "after": [3, 5], "sweep_sha256": "", "since": LATE}
    (note,) = notes(lab, planned(lab, [FIRST] * 3 + [ADDED] * 2, until_decided=plan))
    assert note.startswith("3 seeds an arm had finished before the looks were planned")
    assert "about 10 % of cases" in note
    assert notes(lab, planned(lab, [FIRST] * 3 + [ADDED] * 2, until_decided=plan | {"since": EARLY})) == []


@pytest.fixture
def sweep(study, trainer, tmp_path):
    def start(seeds):
        settings = {"study.baseline": {"model.level": 0.5}, "study.metrics": ["test_acc"]}
        fixed = {key: {"value": value} for key, value in settings.items()}
        made = study(seeds=seeds, **{"model.level": {"values": [0.5, 0.7]}, **fixed})
        more = {"extra": ["--run.root", str(tmp_path)], "preload": ["vitexp.record"], "workers": 2}
        run_study(made, parse=trainer.parse, train=trainer.train, root=tmp_path, **more)
        return made

    return start


def test_the_runner_notes_when_each_cell_was_first_asked_for(sweep, tmp_path):
    sweep(range(3))
    path = tmp_path / "s" / "study.json"
    stored = json.loads(path.read_text())
    assert len({cell["planned"] for cell in stored["cells"]}) == 1
    for cell in stored["cells"]:
        cell["planned"] = EARLY
    path.write_text(json.dumps(stored))
    made = sweep(range(5))
    times = {cell["seed"]: cell["planned"] for cell in json.loads(path.read_text())["cells"]}
    assert [times[seed] == EARLY for seed in range(5)] == [True] * 3 + [False] * 2
    assert any("(3, then 5 seeds)" in note for note in make_table(made, tmp_path).notes)


def test_a_pilot_does_not_put_away_a_plan(sweep, tmp_path, trainer):
    made = sweep(range(3))
    path = tmp_path / "s" / "study.json"
    plan = {"seeds": [0, 1, 2], "after": [3], "sweep_sha256": made.sha256}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"until_decided": plan}))
    with pytest.raises(ValueError, match="gets seeds by a plan: go on with --until-decided"):
        run_pilot(str(made.path), 3, tmp_path, trainer.parse, trainer.train)
    assert "until_decided" in json.loads(path.read_text())
