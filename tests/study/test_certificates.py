"""Arms are certified before they train: once for each network, and not at all once they have trained."""

import json

import pytest

from vitexp.study import certificates
from vitexp.study.table import make_table


def value(*choices):
    return {"values": list(choices)}


@pytest.fixture
def log(tmp_path):
    """What the certifier was asked about, sorted."""
    path = tmp_path / "log"
    path.touch()
    return lambda: sorted(path.read_text().splitlines())


@pytest.fixture
def arms(study, tmp_path):
    def make(*troubles, seeds=(3, 4), **more):
        baseline = {"study.baseline": {"value": {"model.trouble": troubles[0]}}}
        logged = {"model.log": {"value": str(tmp_path / "log")}}
        return study(seeds=seeds, **{"model.trouble": value(*troubles)}, **baseline, **logged, **more)

    return make


def test_networks_that_are_updated_otherwise_and_seeds_share_a_certificate(arms, run, trainer, log, tmp_path):
    made = arms("none", "nan ", **{"model.lr": value(0.1, 0.2)})
    outcome, said = run(made, certify=trainer.certify)
    assert outcome.finished == 8
    assert log() == ["nan  against none, seed 3", "none against none, seed 3"]
    assert "s: certified: 4 of 4 arms (2 networks checked now)\ns: 8 cells, 8 to train" in said
    assert "certified before training: 4 of 4 arms, 2 checks each" in make_table(made, tmp_path).notes
    assert "certified" not in run(made, certify=trainer.certify)[1], "nothing is to train"
    more = arms("none", "nan ", seeds=(3, 4, 5), **{"model.lr": value(0.1, 0.2)})
    assert "s: certified: 4 of 4 arms (0 networks checked now)" in run(more, certify=trainer.certify)[1]
    assert len(log()) == 2


def test_an_arm_that_fails_does_not_train_and_the_others_do(arms, run, trainer, log, ground, tmp_path):
    made = arms("none", "dead")
    outcome, said = run(made, certify=trainer.certify)
    assert (outcome.total, outcome.finished, len(outcome.refused), outcome.exit_status) == (4, 2, 2, 1)
    assert ground.trainings() == [1, 1]
    sentence = "model.trouble=dead is not trained: gradient: nothing comes (and 1 more, which vitexp selfcheck shows)"
    assert said.count(sentence) == 2, "when it is found, and at the end"
    assert said.splitlines()[-1] == sentence
    assert "certified before training: 1 of 1 arms, 2 checks each" in make_table(made, tmp_path).notes
    outcome, said = run(made, certify=trainer.certify)
    assert (outcome.finished, len(outcome.refused), outcome.exit_status) == (2, 2, 1)
    assert said.splitlines()[-1] == sentence
    assert len(log()) == 2


def test_other_code_or_a_damaged_file_needs_new_certificates(arms, run, trainer, log, tmp_path, monkeypatch):
    made = arms("none", "dead")
    run(made, certify=trainer.certify)
    (tmp_path / "s" / certificates.FILE_NAME).write_text('{"networks": 1}')
    run(made, certify=trainer.certify)
    assert log().count("dead against none, seed 3") == 2
    monkeypatch.setattr(certificates, "source_hash", lambda: "0" * 16)
    run(made, certify=trainer.certify)
    assert log().count("dead against none, seed 3") == 3
    kept = json.loads((tmp_path / "s" / certificates.FILE_NAME).read_text())
    assert [one["checks"] for one in kept["networks"].values()] == [2, 2]


def test_a_certificate_that_cannot_be_made_is_an_error_before_anything_trains(arms, run, trainer, ground):
    with pytest.raises(ValueError, match=r"sweep.yaml: an arm cannot be certified: its file has changed"):
        run(arms("none", "no certificate"), certify=trainer.certify)
    assert ground.trainings() == []


def test_a_large_network_is_left_to_the_command(arms, run, trainer, log, monkeypatch):
    monkeypatch.setattr(certificates, "MOST_PARAMETERS", -1)
    outcome, said = run(arms("none", "dead"), certify=trainer.certify)
    assert outcome.finished == 4
    assert "2 arms have more than -1 parameters and are not certified" in said
    assert log() == []


def test_a_table_of_arms_without_certificates_says_nothing_of_them(arms, run, tmp_path):
    made = arms("none", "nan ")
    run(made)
    assert not [note for note in make_table(made, tmp_path).notes if "certified" in note]
