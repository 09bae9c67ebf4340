"""`wandb sweep` and `wandb agent` as a user types them; every cell is a real training."""

import pytest
from wandb_server.server import Server

from vitexp.record import read_records

pytestmark = pytest.mark.slow

TWO_STEPS = {
    "trainer.max_steps": 2,
    "model.warmup_steps": 1,
    "trainer.val_check_interval": 2,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": False,
}
STUDY = {"study.name": "grown", "study.baseline": {"model.pos_embed": "1d"}, "study.x": "data.train_images"}
VALUES = {
    "model.lr": 1.0e-4,
    "data.augment": "crop_flip",
    "data.image_size": None,
    "run.checkpoint": False,
    "run.shots": [[1, 5]],
    "run.shot_seeds": 1,
}
"""Words with underscores, a small float, nothing, a switch, a list."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, make_client):
    """A grid of four cells that two agents side by side have run to its end."""
    server = Server()
    client = make_client(tmp_path_factory.mktemp("swept"), server)
    cells = {"model.pos_embed": ["none", "1d"], "data.train_images": [64, 128]}
    client.place = client.sweep({**TWO_STEPS, **STUDY, **VALUES, **cells})
    agents = [client.start("wandb", "agent", client.place) for _ in range(2)]
    client.agents = [client.ended(agent) for agent in agents]
    yield client
    server.stop()
    assert not server.unknown


def runs(client):
    return list(client.server.state.runs.values())


def test_every_cell_ran_once_and_both_agents_had_some(swept):
    assert [agent.returncode for agent in swept.agents] == [0, 0], swept.agents[0].stderr
    asked = [(run.values()["model.pos_embed"], run.values()["data.train_images"]) for run in runs(swept)]
    assert sorted(asked) == [("1d", 64), ("1d", 128), ("none", 64), ("none", 128)]
    assert [(run.state, run.exitcode) for run in runs(swept)] == [("finished", 0)] * 4
    assert [len(agent.runs) > 0 for agent in swept.server.state.agents.values()] == [True, True]
    assert next(iter(swept.server.state.sweeps.values())).state == "FINISHED"


def test_values_arrive_as_what_they_are(swept):
    records = read_records(swept.folder / "runs")[0]
    assert len(records) == 4
    for record in records:
        assert record.config["model"]["lr"] == 1e-4
        assert record.config["data"]["augment"] == "crop_flip"
        assert record.config["data"]["image_size"] is None
        assert record.config["run"]["checkpoint"] is False
        assert record.config["run"]["shots"] == [1, 5]
        assert not list((swept.folder / "runs").rglob("last.ckpt"))
    assert {record.config["model"]["pos_embed"] for record in records} == {"none", "1d"}


def test_numbers_and_settings_arrive_in_the_same_words(swept):
    records = {record.fingerprint: record for record in read_records(swept.folder / "runs")[0]}
    for run in runs(swept):
        config, record = run.values(), records[run.values()["record.fingerprint"]]
        assert {name: run.summary[name] for name in record.metrics} == record.metrics
        assert config["data_size"] == config["data.train_images"] == record.data["train_images"]
        assert isinstance(config["data.train_images"], int)
        assert [row["val_acc"] for row in run.history if "val_acc" in row][-1] == record.metrics["val_acc"]
        assert run.facts["groupName"] == "grown"


@pytest.mark.parametrize("verb", ["curve", "table"])
def test_the_sweep_and_its_records_give_one_curve_and_one_table(swept, verb):
    here = swept.run("vitexp", verb, "sweep.yaml", "--results", "here")
    there = swept.run("vitexp", verb, "--from", "wandb", swept.place, "--results", "there")
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    files = [path.name for path in (swept.folder / "here" / "grown").glob(f"{verb}*.csv")]
    assert files
    for name in files:
        one, other = (swept.folder / place / "grown" / name for place in ("here", "there"))
        assert one.read_text() == other.read_text()


def test_what_has_run_for_a_sweep_is_told_to_the_next_one(swept):
    """The records are there already, so that nothing trains, and W&B has the numbers all the same."""
    before = {run.name: run.summary for run in runs(swept)}
    place = swept.make_sweep("sweep.yaml")
    done = swept.run("wandb", "agent", place)
    assert done.returncode == 0
    again = [run for run in runs(swept) if run.name not in before]
    assert [run.state for run in again] == ["finished"] * 4
    assert sorted(run.summary["test_acc"] for run in again) == sorted(s["test_acc"] for s in before.values())


def test_what_is_measured_after_training_is_added_to_the_runs(client, server, tmp_path):
    """The table from W&B has the robustness of the one from disk, with its intervals over images."""
    metrics = ["test_acc", "robust/shuffle_2x2"]
    settings = {"study.name": "later", "study.baseline": {"model.pos_embed": "1d"}, "study.metrics": [metrics]}
    place = client.sweep({**TWO_STEPS, **settings, "model.pos_embed": ["none", "1d"], "seed_everything": [0, 1]})
    assert client.run("wandb", "agent", place).returncode == 0
    before = len(server.state.runs)
    measured = client.run("vitexp", "robustness", "sweep.yaml", "--test", "shuffle", "--wandb")
    assert (measured.returncode, measured.stderr.count("W&B online")) == (0, 4), measured.stderr
    assert len(server.state.runs) == before
    for run in runs(client):
        assert (run.state, run.exitcode) == ("finished", 0)
        assert run.summary.keys() > {"test_acc", "robust/clean", "robust/shuffle_2x2", "robust/shuffle_4x4"}
    tables = {}
    for name, words in {"here": ["sweep.yaml"], "there": ["--from", "wandb", place]}.items():
        done = client.run("vitexp", "table", *words, "--results", name, VITEXP_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        tables[name] = (client.folder / name / "later" / "table.md").read_text()
    assert "images like these" in tables["here"]
    assert tables["there"] == tables["here"]


def test_a_cell_that_crashes_does_not_end_the_sweep(client, server):
    bad = {"optimizer": "sgd", "lr": 1.0e30, "warmup_steps": 0}
    cells = [bad, {"pos_embed": "none", "pos_at": "every"}, {"pos_embed": "none", "warmup_steps": 1}]
    settings = {key: value for key, value in TWO_STEPS.items() if not key.startswith("model")}
    place = client.sweep({**settings, "study.name": "crash", "trainer.max_steps": 4, "model": cells})
    done = client.run("wandb", "agent", place)
    assert done.returncode == 0
    diverged, refused, fine = server.state.runs.values()
    assert (diverged.state, diverged.exitcode) == ("failed", 1)
    assert "norm became" in diverged.summary["reason"]
    assert refused.state == "failed"
    assert "pos_at" in done.stderr
    assert fine.state == "finished"
    records = {record.status: record for record in read_records(client.folder / "runs")[0]}
    assert sorted(records) == ["failed", "finished"]
    assert records["failed"].reason == diverged.summary["reason"]


def test_agents_serve_the_look_of_a_plan(client, server):
    settings = {"study.name": "grown", "study.baseline": {"model.pos_embed": "1d"}, "study.metrics": [["test_acc"]]}
    values = {"run.checkpoint": False, "run.shots": [[]], "model.pos_embed": ["none", "1d"]}
    client.sweep({**TWO_STEPS, **settings, **values, "seed_everything": [0, 1, 2]})  # only its file is needed
    words = ("sweep", "sweep.yaml", "--until-decided", "--budget", "6", "--agents", "next.yaml")
    handed = client.run("vitexp", *words)
    assert "6 of 6 cells have no finished run" in handed.stdout, handed.stderr
    before, place = set(server.state.runs), client.make_sweep("next.yaml")
    agents = [client.start("wandb", "agent", place) for _ in range(2)]
    assert [client.ended(agent).returncode for agent in agents] == [0, 0]
    told = [run for name, run in server.state.runs.items() if name not in before]
    assert [run.state for run in told] == ["finished"] * 6
    assert len(read_records(client.folder / "runs")[0]) == 6
    assert "with 6 of 6 runs" in client.run("vitexp", *words).stdout
