import hashlib
import json

import pytest
import yaml

from vitexp.study.spec import StudyConfig, read_study

COMMAND = ["${env}", "vitexp", "fit", "--config", "experiments/x.yaml", "--config", "${args_json_file}"]
SWEEP = {
    "program": "vitexp",
    "method": "grid",
    "metric": {"name": "val_acc", "goal": "maximize"},
    "command": COMMAND,
    "parameters": {
        "study.name": {"value": "position"},
        "study.baseline": {"value": {"model.pos_embed": "1d"}},
        "study.rows": {"value": ["model.pos_embed"]},
        "study.margin": {"value": 0.01},
        "model": {"values": [{"pos_embed": "none", "pos_at": "stem"}, {"pos_embed": "1d", "pos_at": "stem"}]},
        "seed_everything": {"values": [0, 1, 2]},
    },
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(sweep):
        path = tmp_path / "sweep.yaml"
        path.write_text(sweep if isinstance(sweep, str) else yaml.safe_dump(sweep))
        return read_study(path)

    return write_and_read


def changed(parameters=None, **top):
    kept = {name: entry for name, entry in (SWEEP["parameters"] | (parameters or {})).items() if entry is not None}
    return {key: value for key, value in (SWEEP | {"parameters": kept} | top).items() if value is not None}


def test_a_study_expands_to_its_cells(read):
    study = read(SWEEP)
    assert [cell.label for cell in study.cells()] == [
        f"pos_embed={p} seed={s}" for p in ("none", "1d") for s in (0, 1, 2)
    ]
    assert study.factors == ("model.pos_embed", "seed_everything")
    assert study.arm_factors == ("model.pos_embed",)
    assert study.sha256 == hashlib.sha256(study.path.read_bytes()).hexdigest()
    assert study.argv(study.cells()[0], "c.json") == ["fit", "--config", "experiments/x.yaml", "--config", "c.json"]


def test_study_settings_come_from_fixed_parameters(read):
    expected = StudyConfig(name="position", baseline={"model.pos_embed": "1d"}, rows=["model.pos_embed"], margin=0.01)
    assert read(SWEEP).config == expected
    settings = {
        "name": "position",
        "baseline": {"model": {"pos_embed": "1d"}},
        "rows": ["model.pos_embed"],
        "margin": 0.01,
    }
    without = {name: None for name in SWEEP["parameters"] if name.startswith("study.")}
    assert read(changed(without | {"study": {"value": settings}})).config == expected
    nested = {"study": {"parameters": {name: {"value": value} for name, value in settings.items()}}}
    assert read(changed(without | nested)).config == expected


def test_a_settings_of_the_study_is_no_factor(read):
    assert not any(key.startswith("study") for cell in read(SWEEP).cells() for key in cell.overrides)
    assert json.loads(read(SWEEP).cells()[0].args_json)["study.name"] == "position"


def test_run_cap_ends_a_grid_early_and_a_random_search_at_all(read):
    assert [cell.index for cell in read(changed(run_cap=4)).cells()] == [0, 1, 2, 3]
    drawn = {"model.lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1}}
    study = read(changed(drawn, method="random", run_cap=5))
    assert len(study.cells()) == 5
    assert study.cells(seed=1) == study.cells(seed=1) != study.cells(seed=2)
    with pytest.raises(ValueError, match="add run_cap: 20"):
        read(changed(drawn, method="random"))


def test_bayes_can_be_read_but_not_laid_out_here(read):
    study = read(changed(method="bayes"))
    with pytest.raises(ValueError, match="are no arms to compare; put the best ones in a grid with seeds"):
        study.cells()


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (changed(run_cap="5"), "run_cap is '5', which is not a whole number"),
        (changed(run_cap=0), "run_cap is 0; give a whole number of 1 or more"),
        (changed(command="vitexp fit"), "command is 'vitexp fit', which is not a list"),
        (changed(seeds=[1]), r"unknown top-level key 'seeds'; a sweep takes program, method"),
        (changed(method="gird"), "method is 'gird'; write grid, random or bayes"),
        (changed(parameters={"model.lr": {"values": ["1e-4"]}}), r"model\.lr\.values holds 1e-4, .*write 1\.0e-4"),
        (changed(parameters={"model.p": {"values": ["None"]}}), "holds the text 'None'"),
        (changed(parameters={"model.p": {"value": None}}, command=["vitexp", "${args}"]), "over as the text 'None'"),
        (changed(parameters={"study.name": None}), "there is no study name; add `study.name"),
        (changed(parameters={"study.name": {"values": ["a", "b"]}}), r"study\.name varies"),
        (changed(parameters={"study.name": {"value": "../up"}}), "which is no directory name"),
        (changed(parameters={"study.row": {"value": ["a"]}}), r"unknown parameter study\.row; the study takes name"),
        (changed(parameters={"study.rows": {"value": "model.pos_embed"}}), "'model.pos_embed', which is not a list"),
        (changed(parameters={"study.margin": {"value": 1}}), "between 0 and 1, such as 0.01"),
        (changed(parameters={"study.margin": {"value": True}}), "margin is True, which is not a number"),
        (changed(parameters={"study.columns": {"value": ["model.pos"]}}), r"columns names model\.pos, which no"),
        (changed(parameters={"study.baseline": {"value": {"model.pos_embed": "2d"}}}), "no cell is the baseline"),
        (changed(parameters={"seed_everything": {"values": ["0", "1"]}}), "seed_everything is '0'; write"),
        (changed(parameters={"model.pos_at": {"value": "stem"}}), r"two parameters set model\.pos_at"),
        (changed(command=["python", "train.py", "${args}"]), "which is not vitexp; write command:"),
        (changed(command=None), "a study runs `vitexp fit`"),
        ("- a\n", "this is no sweep"),
        ("method: grid\n", "this is no sweep"),
        ("method: [\n", "expected node content"),
        ("method: grid\nmethod: random\n", "'method' is given twice"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_refused_in_one_line_that_names_it(read, sweep, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(sweep)
    assert "sweep.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml cannot be read \(No such file"):
        read_study(tmp_path / "absent.yaml")


@pytest.mark.parametrize("method", ["grid", "bayes"])
def test_a_goal_against_the_direction_of_its_metric_is_refused_by_name(tmp_path, method):
    path = tmp_path / "sweep.yaml"
    parameters = "{study.name: {value: s}, model.lr: {values: [1, 2]}}"
    path.write_text(f"method: {method}\nmetric: {{name: val_loss, goal: maximize}}\nparameters: {parameters}\n")
    with pytest.raises(ValueError, match=r"sweep\.yaml: metric\.goal is maximize, but lower is better for val_loss"):
        read_study(path)
