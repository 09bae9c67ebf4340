"""A table from W&B has the intervals of the one from disk: the real client gets the answers of every run."""

import json
from pathlib import Path

import numpy as np
import pytest
import wandb
from test_from_wandb import account, lab, to_server, written  # noqa: F401
from wandb_server.artifacts import Artifact

from vitexp import cli
from vitexp.bits import write_answers
from vitexp.record import RunRecord, read_records

IMAGES, SEEDS = 80, [0, 1, 2]


@pytest.fixture
def study(lab, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("VITEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "client"))
    settings = {"study.name": "s", "study.metrics": ["test_acc"], "study.baseline": {"model.pool": "cls"}}
    study = lab.study(settings, {"model.pool": ["cls", "gap"], "seed_everything": SEEDS})
    for cell in study.cells():
        pool, hard = cell.overrides["model.pool"], np.linspace(-1, 3, IMAGES)
        right = hard + 0.7 * np.random.default_rng([cell.seed, pool == "gap"]).normal(size=IMAGES) > 0
        folder = lab.root / "s" / pool / f"seed-{cell.seed}"
        answers = write_answers(folder, "test_acc", right.tolist(), "the test images")
        lab.run(cell, {"test_acc": float(right.mean())}, study="s", folder=folder, answers=answers)
    return study


@pytest.fixture
def sweep(account, study, lab):  # noqa: F811
    records = read_records(lab.root)[0]
    place = to_server(account, study, records)
    for number, record in enumerate(records):
        upload(account.state, f"{place.rpartition('/')[2]}-{number}", record)
    return place


def upload(state, run, record):
    """What the client sends when a run has ended; the list of files is made by the client."""
    made = wandb.Artifact(f"answers-{run}", type="answers")
    kept = Artifact(
        len(state.artifacts),
        {"artifactCollectionName": f"answers-{run}", "artifactTypeName": "answers", "digest": made.digest},
        committed=True,
    )
    for entry in record.answers.values():
        made.add_file(f"{record.directory}/{entry['file']}", name=entry["file"])
        kept.files[f"data/{entry['file']}"] = Path(record.directory, entry["file"]).read_bytes()
    kept.files["manifest.json"] = json.dumps(made.manifest.to_manifest_json()).encode()
    state.artifacts.append(kept)


def tables(sweep, study, lab, name="there"):  # noqa: F811
    assert cli.main(["table", str(study.path), "--root", str(lab.root), "--results", "here"]) == 0
    assert cli.main(["table", "--from", "wandb", sweep, "--results", name]) == 0
    return written("here"), written(name)


def test_both_sources_have_the_same_intervals(sweep, study, lab, account, tmp_path):  # noqa: F811
    here, there = tables(sweep, study, lab)
    assert "images like these" in here["table.md"]
    assert there == here
    assert account.requests.count("download") == len(SEEDS) * 2
    before = len(account.requests)
    tables(sweep, study, lab)
    assert account.requests[before:].count("download") == 0
    assert not any("Artifact" in name for name in account.requests[before:])
    (bits, *_) = (tmp_path / "cache").rglob("*.bits")
    whole = bits.read_bytes()
    bits.write_bytes(whole[:-1])
    assert tables(sweep, study, lab)[1] == here
    assert bits.read_bytes() == whole


def spoil(state, how):
    one = state.artifacts[1]
    manifest = json.loads(one.files["manifest.json"])
    (entry,) = manifest["contents"].values()
    if how == "absent":
        one.committed = False
    elif how == "large":
        entry["size"] = 10**12
    elif how == "elsewhere":
        entry["ref"] = "file:///etc/hostname"
    else:
        one.files["data/answers/test_acc.bits"] = b"\xff" * 10
    one.files["manifest.json"] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("absent", "not found"),
        ("large", "has 1000000000000 bytes for 80 images"),
        ("elsewhere", "holds no file answers/"),
        ("altered", "is damaged"),
    ],
)
def test_where_there_are_no_answers_one_note_says_so(how, why, sweep, study, lab, account):  # noqa: F811
    spoil(account.state, how)
    here, there = tables(sweep, study, lab)
    assert there["table.md"] != here["table.md"]
    (note,) = [line for line in there["table.md"].splitlines() if "gave no answers to single images" in line]
    assert "1 of 6 runs" in note
    assert why in note


def test_a_name_that_leads_out_of_the_folder_is_not_followed(sweep, account, tmp_path):  # noqa: F811
    from vitexp.study.wandb_answers import with_answers

    victim = tmp_path / "cache" / "victim"
    victim.parent.mkdir(exist_ok=True)
    victim.write_text("mine")
    one = account.state.artifacts[0]
    name = "answers/../../../../../victim"
    manifest = json.loads(one.files["manifest.json"])
    manifest["contents"] = {name: next(iter(manifest["contents"].values()))}
    one.files["manifest.json"] = json.dumps(manifest).encode()
    answer = {"file": name, "images": IMAGES, "right": 1, "sha256": "0", "order": "o"}
    facts = {"study": "s", "cell": "c", "seed": 0, "fingerprint": "f", "status": "finished", "config": {}}
    record = RunRecord(**facts, answers={"test_acc": answer})
    (read,), (note,) = with_answers([(f"{sweep.rpartition('/')[2]}-0", record)], "lab", "demo", 30)
    assert read.directory is None
    assert "holds no file" in note
    assert victim.read_text() == "mine"
