"""Final numbers: what they were measured on, with which weights, and when they are in the record."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vitexp import cli
from vitexp.bits import read_answers
from vitexp.data.batch import Batches
from vitexp.data.module import ShardData
from vitexp.eval import fewshot
from vitexp.record import fingerprint, read_record
from vitexp.train import measure
from vitexp.train.answers import read_features, read_shots
from vitexp.train.losses import image_losses
from vitexp.train.module import Classifier

WORDS = [
    "--model.arch=micro/4", "--data.batch_size=100", "--trainer.max_epochs=2", "--model.warmup_steps=0",
    "--model.lr=0.01", "--run.wandb=off", "--run.dir=run", "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]  # fmt: skip
OTHERWISE = ["--data.workers=2", "--data.batch_size=70", "--data.reader=local"]
AVERAGES = {
    "swa": ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.05",
            "--trainer.callbacks.swa_epoch_start=1", "--trainer.callbacks.device=null", "--trainer.max_epochs=4"],
    "ema": ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"],
    "polyak": ["--model.polyak=0.9"],
    "best": ["--run.keep=best", "--model.lr=0.1", "--trainer.max_epochs=4"],
}  # fmt: skip


@pytest.fixture
def fit(door):
    return lambda *words, verb="fit": door(verb, *WORDS, *words)


def counted(name, record=None):
    return read_answers("run", record or read_record("run"), name)


def test_what_is_printed_can_be_counted_again(fit, capsys):
    assert fit("--run.shots=[5]", "--run.shot_seeds=2") == 0
    record = read_record("run")
    assert set(record.answers) == {"val_acc", "test_acc", "fewshot_5/draw-0", "fewshot_5/draw-1"}
    for name in ("val_acc", "test_acc"):
        right = counted(name)
        assert record.metrics[name] == sum(right) / len(right)
    shares = [np.mean(counted(f"fewshot_5/draw-{draw}")) for draw in (0, 1)]
    assert record.metrics["fewshot_5"] == pytest.approx(np.mean(shares))
    entries = record.answers
    assert entries["test_acc"]["order"] == entries["fewshot_5/draw-0"]["order"] != entries["val_acc"]["order"]
    printed = capsys.readouterr().out
    assert f"({entries['val_acc']['images']} images)" in printed
    assert f"({entries['test_acc']['images']} images)" in printed
    assert record.learning["chance_acc"] == pytest.approx(0.1, abs=0.01)
    assert record.learning["train_loss_end"] < record.learning["train_loss_start"]
    order = entries["test_acc"]["order"]
    assert fit("--run.shots=[]", "--run.dir=other", *OTHERWISE) == 0
    assert read_record("other").answers["test_acc"]["order"] == order


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize("average", list(AVERAGES))
def test_all_final_numbers_come_from_the_weights_that_are_kept(fit, average, monkeypatch):
    """Those of the checkpoint, measured again by `validate` and `test`, image by image."""
    seen = {}

    report = measure.Classifier._report

    def noted(module, split):
        report(module, split)
        seen[split] = module.measured_images[split].right.tolist(), dict(module.measurements)

    assert fit("--run.shots=[]", *AVERAGES[average]) == 0
    record = read_record("run")
    monkeypatch.setattr(measure.Classifier, "_report", noted)
    for verb, split in (("validate", "val"), ("test", "test")):
        network = [word for word in AVERAGES[average] if word.startswith("--model")]
        assert fit(*network, "--ckpt_path=run/checkpoints/last.ckpt", verb=verb) == 0
        right, numbers = seen[split]
        assert right == counted(f"{split}_acc")
        assert numbers[f"{split}_acc"] == record.metrics[f"{split}_acc"]
        assert numbers[f"{split}_loss"] == record.metrics[f"{split}_loss"]
    assert (record.curves["val_loss"][-1][1] == record.metrics["val_loss"]) == (average in ("ema", "polyak"))


def test_a_limited_evaluation_says_so(fit, capsys):
    assert fit("--run.shots=[]", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=0.5") == 0
    record = read_record("run")
    assert {name for name in record.metrics if name.startswith(("val", "test"))} == set()
    assert record.metrics["limited_val_images"] == record.answers["limited_val_acc"]["images"] == 100
    assert record.metrics["limited_val_acc"] == np.mean(counted("limited_val_acc"))
    assert "val_acc" not in record.curves
    printed = capsys.readouterr().out
    assert "only 100 of 144 images" in printed
    assert "only 200 of 359 images" in printed
    assert fit("--run.dir=best", "--run.keep=best", "--trainer.limit_val_batches=1") == cli.BAD_INPUT
    assert "run.keep best" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--run.keep=best", "--model.polyak=0.9"])
def test_two_choosers_of_weights_are_refused(fit, word, capsys):
    assert fit(word, "--trainer.callbacks+=EMAWeightAveraging") == cli.BAD_INPUT
    assert "EMAWeightAveraging and " in capsys.readouterr().err


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_is_left_out_is_absent(fit, split):
    assert fit("--run.shots=[]", "--trainer.max_epochs=1", f"--trainer.limit_{split}_batches=0") == 0
    record = read_record("run")
    assert record.status == "finished"
    assert not [name for name in (*record.metrics, *record.answers, *record.curves) if split in name]


def test_numbers_are_in_the_record_when_they_are_known(fit, monkeypatch):
    """A probe that fails, here by an error of its own, takes nothing with it."""

    def broken(*_, **__):
        record = read_record("run")
        assert record.status == "running"
        assert {"val_acc", "test_acc"} <= record.metrics.keys() == {*record.answers, "val_loss", "test_loss"}
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(fewshot, "shuffled_order", broken)
    assert fit("--trainer.max_epochs=1") == 1
    record = read_record("run")
    assert record.status == "failed"
    assert "out of memory" in record.reason
    assert record.metrics["test_acc"] == np.mean(counted("test_acc"))
    assert record.steps == 13
    assert record.learning


def test_a_callback_that_exchanges_the_weights_for_the_test_is_refused(fit, monkeypatch, capsys):
    sums = measure.Classifier.weight_sums

    def exchanged(module):
        testing = module._trainer is not None and module.trainer.testing
        return [number + testing for number in sums(module)]

    monkeypatch.setattr(measure.Classifier, "weight_sums", exchanged)
    assert fit("--trainer.max_epochs=1") == 1
    assert "test measured other weights" in capsys.readouterr().err


def test_the_probe_reads_no_other_training_image_and_answers_as_if_it_had(digits, monkeypatch):
    """Draws and answers are those of the features of the whole training split."""
    data = ShardData(shards=str(digits), batch_size=100, train_images=1000)
    torch.manual_seed(0)
    module = Classifier(arch="micro/4", image_size=8, classes=10)
    (x, y), (test_x, test_y) = (read_features(module.network.eval(), data, split, "cpu") for split in ("train", "test"))
    rows, expected = set(), {}
    for seed in range(2):
        generator = np.random.default_rng(seed)
        drawn = np.concatenate([generator.permutation(np.flatnonzero(y == label))[:5] for label in range(10)])
        rows |= set(drawn.tolist())
        (probe,) = fewshot.fit_probes(x[drawn], y[drawn], 10, [1024.0])
        scores = test_x.double().numpy() @ probe.weight.numpy() + probe.bias.numpy()
        expected[f"fewshot_5/draw-{seed}"] = (scores.argmax(axis=1) == test_y.numpy()).tolist()
    read, take = {"train": [], "test": []}, Batches.__getitem__

    def noted(batches, place):
        read[batches.index.split] += (batch := take(batches, place)).samples.tolist()
        return batch

    monkeypatch.setattr(Batches, "__getitem__", noted)
    probe = measure.FewShotProbe([5], 2)
    answers = probe.measure(SimpleNamespace(strategy=SimpleNamespace(root_device="cpu")), module, data)["fewshot_5"]
    assert read["train"] == data.samples("train")[sorted(rows)].tolist()
    assert read["test"] == data.samples("test").tolist()
    assert {name: right.tolist() for name, (_, right) in answers.items()} == expected
    assert probe.metrics == {"fewshot_5": np.mean(list(expected.values()))}
    drawn, (some_x, some_y, *_) = read_shots(module.network, data, "cpu", shots=[5], seeds=[0, 1])
    assert (some_x - x[sorted(rows)]).abs().max() < 1e-6
    assert some_y[drawn[5, 1]].tolist() == [label for label in range(10) for _ in range(5)]


def _rank(rank, store, shards, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    data = ShardData(shards=shards, batch_size=7, train_images=100)
    keep = SimpleNamespace(convert_input=lambda images: images)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2, precision_plugin=keep)
    torch.manual_seed(0)
    network = Classifier(arch="micro/4", image_size=8, classes=10).network.eval()
    torch.save(read_shots(network, data, "cpu", shots=[2], seeds=[0, 1]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_read_what_one_does(digits, tmp_path):
    torch.multiprocessing.spawn(_rank, (tmp_path / "store", str(digits), tmp_path), nprocs=2)
    torch.manual_seed(0)
    network = Classifier(arch="micro/4", image_size=8, classes=10).network.eval()
    data = ShardData(shards=str(digits), batch_size=7, train_images=100)
    drawn, parts = read_shots(network, data, "cpu", shots=[2], seeds=[0, 1])
    for rank in range(2):
        its_drawn, its_parts = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(its_drawn[key], rows) for key, rows in drawn.items())
        for its, part in zip(its_parts, parts, strict=True):
            torch.testing.assert_close(its, part, atol=1e-5, rtol=0)  # other batches round otherwise


def test_a_class_with_fewer_images_gives_what_it_has_and_the_record_says_so(fit, capsys, digits):
    words = ["--data.train_images=45", "--run.shots=[2,5]", "--run.shot_seeds=1", "--trainer.max_epochs=1"]
    assert fit(*words) == cli.BAD_INPUT
    assert "--run.fewer_shots true" in capsys.readouterr().err
    assert fit(*words, "--run.fewer_shots=true") == 0
    record, printed = read_record("run"), capsys.readouterr().out
    taken = np.minimum(ShardData(shards=str(digits), train_images=45).class_counts("train"), 5).sum()
    assert 40 < taken < 50
    assert record.metrics["fewshot_5_images"] == taken
    assert "fewshot_2_images" not in record.metrics
    assert f"(linear probe on {taken} images: a class with fewer gave all it has)" in printed
    assert "(linear probe)" in printed
    off = {**record.config, "run": record.config["run"] | {"fewer_shots": False}}
    before = {**off, "run": {name: value for name, value in off["run"].items() if name != "fewer_shots"}}
    assert fingerprint(before) == fingerprint(off) != record.fingerprint


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_guessing_is_the_least_that_one_answer_for_all_images_costs(loss, smoothing):
    """On a long-tailed set, against the loss itself at the best constant logits, found by descent."""
    counts = np.array([90, 7, 2, 1])
    labels = torch.from_numpy(np.repeat(np.arange(4), counts))
    module = Classifier(arch="micro/2", image_size=8, classes=4, loss=loss, label_smoothing=smoothing)
    data = SimpleNamespace(count=lambda split: 100, labels=lambda split: labels.numpy(), train_count=100)
    data.class_counts = lambda split: counts
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def cost():
        search.zero_grad()
        value = image_losses(logits.expand(100, 4), labels, module.config).mean()
        value.backward()
        return value

    search.step(cost)
    found = measure.chance(module, data)
    assert found["chance_loss"] == pytest.approx(float(cost().detach()), abs=1e-4)
    assert found["chance_acc"] == 0.9
