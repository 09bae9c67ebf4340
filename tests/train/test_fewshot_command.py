import csv
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from vitexp import cli
from vitexp.data.module import ShardData
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.google import save_npz
from vitexp.weights.read import save_own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small network in two formats; the shards of the digits are written there on first use."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(arch="micro/2", image_size=8, classes=10)).eval()
    where = tmp_path_factory.mktemp("fewshot")
    save_own(model, where / "own.safetensors")
    save_npz(model, where / "google.npz")
    return where, model


@pytest.fixture
def model(folder, monkeypatch):
    monkeypatch.chdir(folder[0])
    return folder[1]


def run(capsys, *words):
    status = cli.main(["fewshot", *words])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def features_by_hand(model, split):
    """Pixels of the shards through the network in one batch, each by the sample it belongs to."""
    data = ShardData(shards="digits", val_fraction=0.0, batch_size=2000)
    (batch,) = data.eval_loader(split)
    with torch.no_grad():
        features = model.features((batch.images.float() - 127.5) / 127.5)
    order = np.argsort(batch.samples.numpy())
    return features.double().numpy()[order], batch.labels.numpy()[order]


def rows_by_hand(y, shots, seed):
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(np.flatnonzero(y == label))[:shots] for label in range(10)])


def accuracy_by_hand(train, test, shots, seed):
    """scikit-learn's ridge regression in float64 on the standardised features and a constant of 100."""
    (x, y), (test_x, test_y) = train, test
    rows = rows_by_hand(y, shots, seed)
    mean, scale = x[rows].mean(axis=0), x[rows].std(axis=0) + 1e-5
    z, test_z = (np.hstack([(part - mean) / scale, np.full((len(part), 1), 100.0)]) for part in (x[rows], test_x))
    ridge = Ridge(alpha=1024.0, fit_intercept=False, solver="cholesky")
    ridge.fit(z, np.where(y[rows][:, None] == np.arange(10), 1.0, -1.0))
    return (ridge.predict(test_z).argmax(axis=1) == test_y).mean()


def test_the_numbers_are_those_of_scikit_learns_ridge_on_the_same_features(model, capsys, tmp_path):
    out, table = tmp_path / "out.json", tmp_path / "out.csv"
    words = ["own.safetensors", "--data", "digits", "--shots", "1", "10", "--seeds", "2"]
    status, shown, _ = run(capsys, *words, "--json", str(out), "--csv", str(table))
    assert status == 0
    train, test = (features_by_hand(model, split) for split in ("train", "test"))
    told = json.loads(out.read_text())
    assert [score["shots"] for score in told["scores"]] == [1, 10]
    for score in told["scores"]:
        expected = [accuracy_by_hand(train, test, score["shots"], seed) for seed in range(2)]
        assert score["draws"] == pytest.approx(expected, abs=1e-12)
        assert score["mean"] == pytest.approx(np.mean(expected), abs=1e-12)
        half = (
            12.706204736174698 * np.std(expected, ddof=1) / np.sqrt(2)
        )  # Student's t at 97.5 %, one degree of freedom
        assert score["high"] - score["mean"] == pytest.approx(half, abs=1e-12)
        assert f"{100 * score['mean']:.2f} ± {100 * half:.2f}" in shown
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [draw for score in told["scores"] for draw in score["draws"]]
    assert told["data"]["digits"]["train_images"] == len(train[1])


def test_every_image_goes_through_the_network_once(model, capsys, monkeypatch):
    seen, real = [], ViT.features

    def counted(self, images):
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(ViT, "features", counted)
    status, _, _ = run(capsys, "own.safetensors", "--data", "digits", "--batch-size", "500")
    assert status == 0
    labels = features_by_hand(model, "train")[1]
    taken = {row for seed in range(3) for row in rows_by_hand(labels, 25, seed)}
    assert 250 < len(taken) < 1438
    assert sum(seen[:-1]) == len(taken) + 359  # the last is the batch of this test itself
    assert max(seen[:-1]) <= 500


def test_a_class_gives_what_it_has_and_the_result_says_so(model, capsys, tmp_path):
    out, words = tmp_path / "out.json", ["own.safetensors", "--data", "digits", "--shots", "100", "145"]
    status, shown, _ = run(capsys, *words, "--seeds", "1", "--fewer", "--json", str(out))
    assert status == 0
    train, test = (features_by_hand(model, split) for split in ("train", "test"))
    full, short = json.loads(out.read_text())["scores"]
    taken = sum(min(145, (train[1] == label).sum()) for label in range(10))
    assert (full["images"], short["images"]) == (1000, taken)
    assert short["mean"] == pytest.approx(accuracy_by_hand(train, test, 145, 0), abs=1e-12)
    notes = [line for line in shown.splitlines() if line.startswith("note")]
    assert notes == [f"note: 145 shots are {taken} images, not 1450: a class with fewer images gave all it has"]
    assert run(capsys, *words, "--protocol", "first", "--fewer")[1].count("gave all it has") == 1


def test_one_network_in_two_formats_gives_the_same_table(model, capsys):
    own, google = (
        run(capsys, name, "--data", "digits", "--shots", "5")[1] for name in ("own.safetensors", "google.npz")
    )
    assert own.replace("own.safetensors", "X") == google.replace("google.npz", "X")


def test_the_first_images_and_the_chosen_penalty(model, capsys, tmp_path):
    out = tmp_path / "out.json"
    words = ["own.safetensors", "--data", "digits", "--shots", "5", "--protocol", "first", "--json", str(out)]
    status, shown, _ = run(capsys, *words)
    assert status == 0
    (score,) = json.loads(out.read_text())["scores"]
    (x, y), (test_x, test_y) = (features_by_hand(model, split) for split in ("train", "test"))
    rows = np.concatenate([np.flatnonzero(y == label)[:5] for label in range(10)])
    mean, scale = x[rows].mean(axis=0), x[rows].std(axis=0) + 1e-5
    z, test_z = (np.hstack([(part - mean) / scale, np.full((len(part), 1), 100.0)]) for part in (x[rows], test_x))
    targets, found = np.where(y[rows][:, None] == np.arange(10), 1.0, -1.0), {}
    for power in range(-10, 20):
        weights = np.linalg.solve(z.T @ z + 2.0**power * np.eye(z.shape[1]), z.T @ targets)
        found[2.0**power] = ((test_z @ weights).argmax(axis=1) == test_y).mean()
    # Of equal accuracies the larger penalty has the higher rank.
    best = max(found, key=lambda penalty: (found[penalty], penalty))
    assert (score["penalty"], score["mean"]) == (best, pytest.approx(found[best], abs=1e-12))
    assert "ranks best on the test images" in shown
    assert f"    5   {100 * score['mean']:6.2f}   {best:g}" in shown


def test_a_random_network_of_timms_at_the_size_that_is_asked_for(model, capsys):
    words = ["timm:vit_tiny_patch16_224", "--random", "--image-size", "16", "--data", "digits", "--shots", "1"]
    status, shown, _ = run(capsys, *words)
    assert status == 0
    assert "16 x 16 pixels, 192 features" in shown


def test_the_view_of_big_vision_shows_the_middle_of_a_larger_image(model, capsys):
    whole, middle = (
        run(capsys, "own.safetensors", "--data", "digits", "--shots", "5", "--image-size", "16", "--view", view)[1]
        for view in ("resize", "resize_crop")
    )
    assert "16 x 16 pixels" in middle
    assert whole != middle


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["absent.ckpt", "--data", "digits"], "absent.ckpt does not exist"),
        (["timm:vit_tinny", "--data", "digits"], "timm has no model 'vit_tinny'"),
        (["timm:vit_tiny_patch16_224", "--data", "digits"], "not on this machine"),
        (["own.safetensors", "--data", "digits", "--shots", "200"], "class 8 has 139 training images"),
        (["timm:vit_tiny_patch16_224", "--random", "--data", "digits"], "give --image-size 224"),
        (["own.safetensors", "--data", "nowhere"], "no embedded source"),
        (["own.safetensors", "--data", "digits", "--image-size", "9"], "patch 2 does not divide"),
        (["own.safetensors", "--data", "digits", "--random"], "--random is for timm:NAME"),
        (["own.safetensors", "--data", "digits", "digits"], "one data set twice"),
        (["own.safetensors", "--data", "digits", "--shots", "0"], "at least 1"),
        (["own.safetensors", "--data", "digits", "--protocol", "first", "--seeds", "2"], "--seeds has no effect"),
    ],
)
def test_refusals_are_one_sentence(model, words, told, capsys):
    status, shown, error = run(capsys, *words)
    assert status == cli.BAD_INPUT
    assert told in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("vitexp: ")
    assert not shown
