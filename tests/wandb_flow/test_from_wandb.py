"""The same study from records on disk and from the runs of a W&B sweep, which the real client fetches."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import pytest
import wandb
from wandb_server.server import KEY
from wandb_server.state import ENTITY, Run

from vitexp import cli, wandb_record
from vitexp.wandb_record import end_summary, start_config

_PLACE = Path(__file__).parents[1] / "study" / "conftest.py"
_spec = importlib.util.spec_from_file_location("study_laboratory", _PLACE)
laboratory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(laboratory)

lab = laboratory.lab
SIZES = [64, 128, 256]
CURVE = {"study.name": "grown", "study.baseline": {"model.pos_embed": "1d"}, "study.x": "data.train_images"}


@pytest.fixture
def account(monkeypatch, tmp_path, server):
    """This process as a W&B user."""
    for name, value in {"BASE_URL": server.url, "API_KEY": KEY, "MODE": "online", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()  # the client reads its settings once
    yield server
    wandb.teardown()


@pytest.fixture
def study(lab):
    """A curve of two arms, three sizes and three seeds; one of its runs failed."""
    study = lab.study(
        CURVE, {"model.pos_embed": ["none", "1d"], "data.train_images": SIZES, "seed_everything": [0, 1, 2]}
    )
    for cell in study.cells():
        size, arm = cell.overrides["data.train_images"], cell.overrides["model.pos_embed"]
        data = {"name": "digits", "classes": 10, "test_images": 360, "train_images": size}
        accuracy = 0.9 - 2 / size - 0.05 * (arm == "none") + 0.001 * cell.seed
        failed = (size, arm, cell.seed) == (256, "none", 2)
        changes = {"status": "failed", "reason": "out of memory"} if failed else {"images_seen": 1280}
        lab.run(cell, {} if failed else {"test_acc": accuracy}, study="grown", data=data, **changes)
    return study


def to_server(server, study, records):
    """A sweep whose runs hold what training logs of these records."""
    sweep = server.state.add_sweep(study.path.read_text(), "demo")
    for number, record in enumerate(records):
        config = {key: {"value": value} for key, value in start_config(record).items()}
        run = Run(
            ENTITY, "demo", f"{sweep.name}-{number}", sweep.name, record.status, config=json.loads(json.dumps(config))
        )
        run.summary = json.loads(json.dumps(end_summary(record)))
        run.facts["displayName"] = record.study  # a name is for people, and may be that of other runs too
        server.state.runs["demo", run.name] = run
    return f"{ENTITY}/demo/{sweep.name}"


@pytest.fixture
def sweep(account, study, lab):
    from vitexp.record import read_records

    return to_server(account, study, read_records(lab.root)[0])


def written(folder):
    return {path.name: path.read_text() for path in Path(folder).rglob("*") if path.suffix in (".csv", ".md", ".tex")}


@pytest.mark.parametrize("verb", ["curve", "table"])
def test_both_sources_give_the_same_numbers(verb, sweep, study, lab):
    assert cli.main([verb, str(study.path), "--root", str(lab.root), "--results", "here"]) == 0
    assert cli.main([verb, "--from", "wandb", sweep, "--results", "there"]) == 0
    assert cli.main([verb, str(study.path), "--from", f"wandb:{sweep}", "--results", "named"]) == 0
    here = written("here")
    assert here
    assert written("there") == here
    assert written("named") == here


def test_a_curve_against_compute_needs_no_folder_either(account, lab):
    lines = {"MLP width": ["S/32", "S/16"], "All": ["S/32", "B/16"]}
    settings = {"study.name": "priced", "study.x": "relative_flops", "study.lines": lines}
    settings |= {"study.baseline": {"model.arch": "S/32"}}
    study = lab.study(settings, {"model.arch": ["S/32", "S/16", "B/16"], "seed_everything": [0, 1, 2]})
    records = []
    for cell in study.cells():
        place = ["S/32", "S/16", "B/16"].index(cell.overrides["model.arch"])
        facts = {"train_flops": 4.0**place * 1e12, "parameters": 1000, "train_seconds": 2.0, "data": {"name": "digits"}}
        value = 0.5 + 0.1 * place + 0.003 * cell.seed * (place + 1)
        records.append(lab.run(cell, {"test_acc": value}, study="priced", **facts))
    sweep = to_server(account, study, records)
    assert cli.main(["curve", str(study.path), "--root", str(lab.root), "--results", "here"]) == 0
    assert cli.main(["curve", "--from", "wandb", sweep, "--results", "there"]) == 0
    here = written("here")
    assert {row["relative_flops"] for row in csv.DictReader(io.StringIO(here["curve.csv"]))} == {"1.0", "4.0", "16.0"}
    assert "equal accuracy,test_acc,MLP width,All,relative_flops" in here["curve-fits.csv"]
    assert written("there") == here


def test_a_study_that_tunes_is_read_from_there_as_from_here(account, lab):
    settings = {"study.name": "tuned", "study.baseline": {"model.pos_embed": "1d"}, "study.tune": ["model.lr"]}
    values = {"model.pos_embed": ["none", "1d"], "model.lr": [0.1, 0.2], "seed_everything": [0, 1, 2]}
    study = lab.study(settings, values)
    records = []
    for cell in study.cells():
        arm, rate = cell.overrides["model.pos_embed"] == "none", cell.overrides["model.lr"]
        metrics = {"val_acc": 0.5 + rate, "test_acc": 0.7 + rate + 0.1 * arm + 0.01 * cell.seed * (1 + arm)}
        records.append(lab.run(cell, metrics, study="tuned", config={"study.tune": ["model.lr"]}))
    sweep = to_server(account, study, records)
    assert not [run for run in account.state.runs.values() if "test_acc" in run.summary]
    assert cli.main(["table", str(study.path), "--root", str(lab.root), "--results", "here"]) == 0
    assert cli.main(["table", "--from", "wandb", sweep, "--results", "there"]) == 0
    here = written("here")
    assert "0.91" in here["table.csv"]
    assert written("there") == here


@pytest.mark.parametrize("verb", ["table", "curve", "claims"])
def test_a_sweep_that_serves_planned_looks_is_said_to_be_judged_without_them(verb, account, study, lab, capsys):
    from vitexp.record import read_records
    from vitexp.study.run.until import write_for_agents

    write_for_agents(study, study.cells(), study.path)  # the file that agents are given
    sweep = to_server(account, study, read_records(lab.root)[0])
    assert cli.main([verb, "--from", "wandb", sweep, "--json"]) == 0
    said = "this sweep serves planned looks (--until-decided), which W&B does not hold"
    assert said in (output := capsys.readouterr().out)
    assert "where runs/grown/study.json is" in output


def test_a_failed_run_is_counted_as_that(sweep, capsys):
    assert cli.main(["curve", "--from", "wandb", sweep]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "17 of 18 runs are finished" in told
    assert "seed 2 failed (out of memory)" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "wandb", "demo/12ab"], "write ENTITY/PROJECT/SWEEP"),
        (["--from", "neptune", "a/b/c"], "write --from wandb ENTITY/PROJECT/SWEEP"),
        (["--from", "wandb"], "write --from wandb ENTITY/PROJECT/SWEEP"),
        ([], "no study is named"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(words, told, capsys):
    assert cli.main(["curve", *words]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_sweep_that_cannot_be_read_is_one_sentence(sweep, account, monkeypatch, capsys):
    def told():
        assert cli.main(["curve", "--from", "wandb", sweep]) == cli.BAD_INPUT
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    place = sweep
    sweep = f"{place}x"
    assert f"the W&B sweep {place}x cannot be read: Could not find sweep" in told()
    sweep = place
    account.stop()
    monkeypatch.setattr(wandb_record, "ATTEMPTS", 1)
    assert "cannot be reached (Connection refused)" in told()
    account.start()
    monkeypatch.delenv("WANDB_API_KEY")
    wandb.teardown()
    assert "run `wandb login`" in told()


def test_a_search_whose_cells_nobody_knows_is_refused(account, study, lab, capsys):
    study.path.write_text(study.path.read_text().replace("method: grid", "method: random\nrun_cap: 4"))
    place = to_server(account, study, [])
    assert cli.main(["curve", "--from", "wandb", place]) == cli.BAD_INPUT
    assert "is a random search" in capsys.readouterr().err


def test_a_sweep_is_read_in_few_questions(sweep, account):
    """Not one for each run: studies have hundreds. The address of the sweep's page names it too."""
    *project, name = sweep.split("/")
    address = f"{account.url}/{'/'.join(project)}/sweeps/{name}?nw=me"
    assert cli.main(["table", "--from", "wandb", address]) == 0
    assert len(account.requests) < 6


def test_the_verdicts_on_claims_are_the_same_from_both(sweep, study, lab):
    assert cli.main(["claims", str(study.path), "--root", str(lab.root), "--results", "here"]) == 0
    assert cli.main(["claims", "--from", "wandb", sweep, "--results", "there"]) == 0
    texts = {name: Path(name, "claims.csv").read_text() for name in ("here", "there")}
    rows = {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}
    places = {name: {row.pop("place") for row in found} - {""} for name, found in rows.items()}
    assert rows["here"] == rows["there"]
    assert places == {"here": {str(lab.root / "grown")}, "there": {f"the W&B sweep {sweep}"}}


def test_two_sweeps_are_compared_as_their_folders(account, lab, capsys):
    from vitexp.record import read_records

    sides = []
    for dropout, level in ((0.0, 0.9), (0.1, 0.93)):
        name = f"dropout-{dropout}"
        one = lab.study({"study.name": name}, {"model.dropout": [dropout], "seed_everything": [0, 1, 2, 3, 4]})
        for cell in one.cells():
            value = level + 0.003 * ((2 + dropout * 10) * cell.seed % 5)
            lab.run(cell, {"test_acc": value}, study=name, code={"source": "0123456789abcdef"})
        sides.append((str(lab.root / name), f"wandb:{to_server(account, one, read_records(lab.root / name)[0])}"))
    found = []
    for words in zip(*sides, strict=True):
        status = cli.main(["compare", *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        found.append((status, {side: document.pop(side) | {"runs": ""} for side in ("base", "candidate")}, document))
    assert found[0] == found[1]
    assert found[0][0] == 0
