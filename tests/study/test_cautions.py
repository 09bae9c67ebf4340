import pytest

from vitexp.study.curve import make_curve
from vitexp.study.select import select
from vitexp.study.table import make_table

VERSIONS = {"torch": "2.11", "lightning": "2.6.4", "wandb": "0.31"}
ALIKE = {"steps": 84, "planned_steps": 84, "images_seen": 5376, "code": {"source": "a" * 12}, "versions": VERSIONS}


def filled(lab, odd, seed=2, pool="gap", seeds=(0, 1, 2)):
    """A study of which the run of one arm and seed differs from the others."""
    study = lab.study({"study.name": "s"}, {"model.pool": ["cls", "gap"], "seed_everything": list(seeds)})
    for cell in study.cells():
        is_odd = (cell.overrides["model.pool"], cell.seed) == (pool, seed)
        lab.run(cell, study="s", **{"metrics": {"test_acc": 0.9}, **ALIKE, **(odd if is_odd else {})})
    return study


@pytest.mark.parametrize(
    ("odd", "names"),
    [
        ({"steps": 42}, "steps taken: 84 (5 runs), 42 (pool=gap seed 2)"),
        ({"planned_steps": 90}, "planned steps: 84 (5 runs), 90 (pool=gap seed 2)"),
        ({"images_seen": 5000}, "images seen: 5,376 (5 runs), 5,000 (pool=gap seed 2)"),
        ({"code": {"source": "b" * 12}}, "source code: source aaaaaaaa (5 runs), source bbbbbbbb (pool=gap seed 2)"),
        ({"code": {"commit": "c" * 40, "dirty": True}}, "commit ccccccc with changes (pool=gap seed 2)"),
        ({"versions": {**VERSIONS, "torch": "2.12"}}, "version of torch: 2.11 (5 runs), 2.12 (pool=gap seed 2)"),
        ({"versions": {**VERSIONS, "lightning": "2.7"}}, "version of lightning: 2.6.4 (5 runs), 2.7 (pool=gap seed 2)"),
        ({"device": {"type": "cuda", "name": "H100"}}, "device: not recorded (5 runs), H100 (pool=gap seed 2)"),
        ({"device": {"type": "cpu", "threads": 2}}, "threads: not recorded (5 runs), 2 (pool=gap seed 2)"),
        ({"metrics": {"test_acc": 51.5}}, "no share of images between 0 and 1: pool=gap seed 2 (test_acc 51.5)"),
        ({"format": 1}, "format of the record: 2 (5 runs), 1 (pool=gap seed 2)"),
        (
            {"learning": {"train_loss_start": 2.30, "train_loss_end": 2.30}},
            "did not train: pool=gap (1 of 3 runs, 33 %, 95 % interval 1 to 91 %; left out; seed 2: training loss",
        ),
    ],
)
def test_what_is_unlike_among_the_runs_of_a_table_is_named(lab, odd, names):
    (caution,) = select(filled(lab, odd), lab.root).cautions
    assert names in caution


@pytest.mark.parametrize("odd", [{}, {"versions": {**VERSIONS, "wandb": "0.32"}}, {"train_seconds": 3.0}])
def test_what_moves_no_number_is_no_caution(lab, odd):
    assert select(filled(lab, odd), lab.root).cautions == ()


def test_arms_that_should_differ_in_length_are_compared_within_each_length_alone(lab):
    swept = {"data.train_images": [100, 200], "model.pool": ["cls", "gap"], "seed_everything": [0, 1]}
    study = lab.study({"study.name": "s"}, swept)
    for cell in study.cells():
        odd = cell.overrides == {"data.train_images": 200, "model.pool": "gap", "seed_everything": 1}
        steps = cell.overrides["data.train_images"] // 10 - 5 * odd
        lab.run(cell, {"test_acc": 0.9}, study="s", **{**ALIKE, "steps": steps, "planned_steps": steps})
    (caution,) = make_curve(study, lab.root).cautions
    assert "steps taken: 20 (3 runs), 15 (train_images=200 pool=gap seed 1)" in caution
    assert " 10 (" not in caution


def test_stopped_runs_are_listed_and_never_counted(lab):
    study = filled(lab, {"status": "stopped", "steps": 42, "reason": "EarlyStopping"})
    table = make_table(study, lab.root)
    assert [entry.interval.n for entry in table.entries["test_acc"]] == [3, 2]
    assert table.notes == ("5 of 6 runs are finished; pool=gap: seed 2 stopped at 42 of 84 steps: EarlyStopping",)


def test_a_finished_run_of_the_first_format_that_ended_early_is_read_as_stopped(lab):
    study = filled(lab, {"format": 1, "steps": 42, "epochs": 5.0})  # of the 10 that its config asks for
    table = make_table(study, lab.root)
    assert [entry.interval.n for entry in table.entries["test_acc"]] == [3, 2]
    assert "seed 2 stopped at 42 steps, in epoch 5 of 10" in table.notes[0]


def test_a_damaged_record_is_named_and_the_others_are_shown(lab):
    study = filled(lab, {})
    broken = sorted(lab.root.rglob("record.json"))[0]
    broken.write_text('{"metrics": null}')
    table = make_table(study, lab.root)
    assert sum(entry.interval.n for entry in table.entries["test_acc"]) == 5
    (caution,) = table.cautions
    assert caution.startswith(f"left out: {broken} is not a run record (metrics is None")


def test_where_all_records_are_damaged_the_sentence_names_one(lab):
    study = filled(lab, {})
    for path in lab.root.rglob("record.json"):
        path.write_text("{")
    with pytest.raises(ValueError, match=r"holds no finished run.*record\.json is not a run record"):
        make_table(study, lab.root)
