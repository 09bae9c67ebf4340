"""A checkpoint continues its own run, or a longer one that says so; everything else is refused before it is written."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from vitexp import cli
from vitexp.record import read_record

TINY = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.enable_progress_bar=false", "--run.wandb=off"]
QUIET = ["--trainer.accelerator=cpu", "--run.shots=[]", "--run.test=false"]


@pytest.fixture
def fit(door):
    return lambda *words, verb="fit": door(verb, *TINY, *QUIET, *words)


@pytest.fixture(scope="module")
def _trained(tmp_path_factory, digits):
    """The checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp("trained") / "one"
    words = [f"--data.shards={digits}", *TINY, *QUIET, "--trainer.max_epochs=1", f"--run.dir={folder}"]
    assert cli.main(["fit", *words]) == 0
    return folder


@pytest.fixture
def one(_trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_trained, tmp_path / "one")
    return "one/checkpoints/last.ckpt"


def said(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vitexp:")]
    return line


def test_a_checkpoint_says_which_run_it_is_of_in_plain_words(one):
    content = torch.load(one, weights_only=True)
    record = read_record("one")
    assert content["vitexp_run"] == {"fingerprint": record.fingerprint, "config": record.config}


def test_a_longer_run_goes_on_from_a_shorter_one_and_is_a_run_of_its_own(fit, one, capsys):
    longer = ["--trainer.max_epochs=2", "--run.dir=two"]
    assert fit(*longer, f"--ckpt_path={one}") == 0
    first, record = read_record("one"), read_record("two")
    assert record.config["run"]["continued"] == {"fingerprint": first.fingerprint, "step": 7}
    assert (record.status, record.steps, record.planned_steps, record.images_seen) == ("finished", 14, 14, 2 * 1294)
    clean = cli.plan(["fit", f"--data.shards={record.config['data']['shards']}", *TINY, *QUIET, *longer[:1]])
    assert len({first.fingerprint, record.fingerprint, clean["fingerprint"]}) == 3
    assert fit(*longer, f"--ckpt_path={one}") == 0
    assert "Finished already" in capsys.readouterr().out
    assert fit(*longer, verb="validate") == 0
    before = Path("one/record.json").read_bytes()
    assert fit("--trainer.max_epochs=2", "--run.dir=one", "--ckpt_path=last") == cli.BAD_INPUT
    assert "holds a run of another config" in said(capsys)
    assert Path("one/record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.lr=1.0e-5"], "model.lr is 1e-05 (there 0.001)"),
        (["--model.weight_decay=0.1"], "model.weight_decay is 0.1 (there 0.0)"),
        (["--seed_everything=7"], "seed_everything is 7 (there 0)"),
        (["--data.train_images=500"], "data.train_images is 500 (there unset)"),
        (["--data.batch_size=100"], "data.batch_size is 100 (there 200)"),
        (
            ["--model.optimizer=sgd", "--model.pool=gap"],
            "model.optimizer is sgd (there adamw), model.pool is gap (there",
        ),
        (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_acc"], "trainer.callbacks is"),
        (["--trainer.max_epochs=1", "--trainer.max_steps=7"], "from step 7 already"),
    ],
)
def test_any_other_run_is_refused_by_the_options_that_differ(fit, one, capsys, words, named):
    assert fit("--trainer.max_epochs=2", "--run.dir=x", f"--ckpt_path={one}", *words) == cli.BAD_INPUT
    line = said(capsys)
    assert named in line
    assert "--run.init" in line or "train longer" in line
    assert not Path("x").exists()


class _Code:
    def __reduce__(self):
        return (print, ("executed",))


def _bad(kind, good):
    """A file that no run can go on from."""
    path, content = Path("bad.ckpt"), torch.load(good, weights_only=True)
    if kind == "truncated":
        path.write_bytes(Path(good).read_bytes()[:5000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(_Code()))
    elif kind == "code in a checkpoint":
        torch.save({**content, "hyper_parameters": _Code()}, path)
    elif kind == "weights":
        torch.save(content["state_dict"], path)
    elif kind == "of nobody":
        torch.save({name: value for name, value in content.items() if name != "vitexp_run"}, path)
    elif kind == "text":
        path.write_text("no checkpoint")
    return path


BAD = ("truncated", "code", "code in a checkpoint", "weights", "text", "absent")


@pytest.mark.parametrize(
    ("kind", "verb"), [("of nobody", "fit"), *((kind, verb) for kind in BAD for verb in ("fit", "test"))]
)
def test_a_file_that_is_no_checkpoint_of_a_run_is_one_sentence(fit, one, capsys, kind, verb):
    path = _bad(kind, one)
    assert fit("--trainer.max_epochs=1", "--run.dir=x", f"--ckpt_path={path}", verb=verb) == cli.BAD_INPUT
    captured = capsys.readouterr()
    assert str(path) in captured.err
    assert captured.err.count("\n") == 1
    assert "executed" not in captured.out.splitlines()
    assert not Path("x").exists()


def test_options_inside_a_checkpoint_do_not_win_over_the_flags(fit, one):
    content = torch.load(one, weights_only=True)
    torch.save(content | {"hyper_parameters": {"lr": 9.0}}, "own.ckpt")
    assert fit("--trainer.max_epochs=2", "--run.dir=two", "--ckpt_path=own.ckpt") == 0
    assert read_record("two").config["model"]["lr"] == 1e-3


def test_a_checkpoint_of_before_is_known_by_the_record_of_its_folder(fit, one):
    content = torch.load(one, weights_only=True)
    del content["vitexp_run"]
    torch.save(content, one)
    assert fit("--trainer.max_epochs=2", "--run.dir=two", f"--ckpt_path={one}") == 0
    assert read_record("two").config["run"]["continued"]["step"] == 7
    assert fit("--trainer.max_epochs=2", "--run.dir=x", f"--ckpt_path={one}", "--model.lr=0.1") == cli.BAD_INPUT


def test_last_without_a_checkpoint_says_that_the_run_begins(fit, capsys):
    assert fit("--trainer.max_steps=1", "--run.dir=new", "--ckpt_path=last") == 0
    assert "no checkpoint in new/checkpoints yet: the run begins with step 0" in capsys.readouterr().out


def test_a_checkpoint_in_the_folder_of_another_run_is_not_continued(fit, one, capsys):
    Path("one/record.json").unlink()
    words = ["--trainer.max_epochs=1", "--run.dir=one", "--ckpt_path=last", "--model.lr=0.1"]
    assert fit(*words) == cli.BAD_INPUT
    assert "model.lr is 0.1 (there 0.001)" in said(capsys)
    assert not Path("one/record.json").exists()


def test_a_run_that_was_stopped_goes_on_from_the_weights_of_its_last_step(fit):
    words = ["--trainer.max_epochs=2", "--run.dir=cut", "--model.polyak=0.9"]
    assert fit(*words, "--trainer.max_time=00:00:00:00") == 0
    assert read_record("cut").status == "stopped"
    state = torch.load("cut/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"network", "average"}
    assert fit(*words, "--ckpt_path=last") == 0
    assert (read_record("cut").status, read_record("cut").steps) == ("finished", 14)


@pytest.mark.parametrize("step", [9, 10], ids=["between validations", "before a validation"])
def test_a_run_that_time_cut_off_in_mid_epoch_goes_on_to_the_same_bits(fit, monkeypatch, step):
    words = ["--trainer.max_epochs=2", "--model.polyak=0.9", "--trainer.val_check_interval=3"]

    def stop(timer, trainer):
        trainer.should_stop = trainer.should_stop or trainer.global_step == step

    assert fit(*words, "--run.dir=whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Timer, "_check_time_remaining", stop)
        assert fit(*words, "--run.dir=cut", "--trainer.max_time=00:01:00:00") == 0
    assert (read_record("cut").status, read_record("cut").steps) == ("stopped", step)
    assert fit(*words, "--run.dir=cut", "--ckpt_path=last") == 0
    whole, cut = (torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "cut"))
    assert all(torch.equal(value, cut["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert read_record("cut").status == "finished"
    assert read_record("cut").metrics == read_record("whole").metrics
    assert read_record("cut").curves == read_record("whole").curves


def test_the_verbs_that_measure_find_the_run_of_fits_own_flags(fit, capsys):
    words = ["--trainer.max_epochs=1", "--run.root=runs"]
    assert fit(*words) == 0
    for verb in ("validate", "test", "predict"):
        assert fit(*words, verb=verb) == 0
    assert len(list(Path("runs").rglob("record.json"))) == 1
    capsys.readouterr()
    assert fit("--trainer.max_epochs=2", "--run.root=runs", verb="test") == cli.BAD_INPUT
    line = said(capsys)
    assert "trainer.max_epochs is 2 (there 1)" in line
    assert "fingerprint" in line


def test_the_checkpoint_of_another_network_is_not_measured(fit, one, capsys):
    for words, named in (
        (["--model.pool=gap"], "model.pool is gap"),
        (["--model.loss=sigmoid"], "model.loss is sigmoid"),
    ):
        assert fit(f"--ckpt_path={one}", "--run.dir=x", *words, verb="test") == cli.BAD_INPUT
        assert named in said(capsys)
    assert fit(f"--ckpt_path={one}", "--run.dir=x", "--model.lr=0.5", verb="test") == 0
