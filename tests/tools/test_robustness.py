"""`vitexp robustness` from runs to table: the same images for all, what is finished is skipped, bad input refused."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tools_at_work import refused, robustness, runs

from vitexp import cli, metrics
from vitexp.bits import read_answers
from vitexp.data.module import ShardData
from vitexp.data.shards import write
from vitexp.eval.attention_maps import watch_attention
from vitexp.eval.changes import blanked, random_order, shuffled
from vitexp.nn.vit import ViT, ViTConfig, build
from vitexp.record import read_record, read_records, write_record
from vitexp.robust import FILE, Subject, read_tests, with_tests
from vitexp.tools.network import open_network
from vitexp.tools.robustness import write_test
from vitexp.weights.read import save_own


def test_a_study_becomes_a_table_and_a_figure_and_its_records_stay_as_they_are(home, capsys):
    before = {path: path.read_bytes() for path in home.rglob("record.json")}
    status, out, _ = robustness(capsys, "rob.yaml", "--test", "shuffle", "drop", "--ratios", "50")
    assert status == 0
    assert "2x2, primary" in out
    assert "Exploratory: every column that is not marked as primary" in out
    assert {path.name for path in (home / "results" / "rob").iterdir()} == {
        f"robustness.{kind}" for kind in ("md", "csv", "tex", "png", "svg")
    }
    assert {path: path.read_bytes() for path in home.rglob("record.json")} == before
    for run in runs(home):
        if run.config["model"]["pos_embed"] == "none":  # whole patches change places
            assert run.metrics["robust/shuffle_2x2"] == run.metrics["robust/clean"] == run.metrics["test_acc"]
    assert cli.main(["table", "rob.yaml", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert "robust/shuffle_2x2" in json.dumps(table)


def test_answers_are_those_of_the_network_to_images_that_are_changed_by_hand(home, capsys):
    robustness(capsys, "rob.yaml", "--test", "shuffle", "drop", "--ratios", "50")

    data = ShardData(shards=str(home / "digits"), batch_size=1000)
    (batch,) = data.eval_loader("test")
    images, samples = batch.images.permute(0, 2, 3, 1).numpy(), batch.samples.numpy()
    for run in runs(home):
        network = open_network(f"{run.directory}/checkpoints/last.ckpt").network
        for name, changed in (
            ("shuffle_4x4", shuffled(images, samples, 4, 4)),
            ("drop_50", blanked(images, random_order(samples, 16), 50, 4)),
        ):
            with torch.no_grad():
                said = network(torch.from_numpy(changed).permute(0, 3, 1, 2) / 127.5 - 1).argmax(1)
            expected = (said == batch.labels).numpy()
            found = np.array(read_answers(run.directory, run, f"robust/{name}"))
            assert (found != expected).mean() < 0.01
            assert run.metrics[f"robust/{name}"] == pytest.approx(found.mean())


def test_what_is_finished_is_skipped_until_weights_or_settings_change(home, capsys):
    words = ("rob.yaml", "--test", "drop", "--ratios", "50")
    assert "[2/2] drop_50: 4 networks" in robustness(capsys, *words)[2]
    assert "drop_50" not in robustness(capsys, *words)[2]
    assert "[3/3] drop_30: 4 networks" in robustness(capsys, *words, "30")[2]
    first = next(home.rglob(FILE))
    stored = json.loads(first.read_text())
    del stored["tests"]["drop_50"]
    first.write_text(json.dumps(stored))
    assert "[2/2] drop_50: 1 networks" in robustness(capsys, *words)[2]
    (first.parent / "answers" / "robust" / "drop_50.bits").unlink()
    assert "[2/2] drop_50: 1 networks" in robustness(capsys, *words)[2]
    bits = first.parent / "answers" / "robust" / "drop_50.bits"
    bits.write_bytes(bytes(len(bits.read_bytes())))
    assert "[2/2] drop_50: 1 networks" in robustness(capsys, *words)[2]
    assert "drop_50" not in robustness(capsys, *words, "--images", "100")[2]  # all hold the 100
    assert "[2/2] drop_70: 4 networks" in robustness(capsys, *words[:-1], "70", "--images", "100")[2]
    assert {run.answers["robust/drop_70"]["images"] for run in runs(home)} == {100}
    text = (home / "results" / "rob" / "robustness.md").read_text()
    assert "100–359 test images" in text


def test_results_of_weights_that_were_trained_again_are_passed_over(home, capsys):
    robustness(capsys, "rob.yaml", "--test", "shuffle")
    path = next(home.rglob("record.json"))
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"finished": "2030-01-01T00:00:00+00:00"}))
    assert not any(name.startswith("robust/") for name in with_tests(read_record(path), []).metrics)
    damaged = []
    (path.parent / FILE).write_text("{")
    with_tests(read_record(path), damaged)
    assert "cannot be read" in damaged[0]


def test_all_tests_run_on_one_network_and_a_run_by_its_folder(home, capsys):
    folder = next(home.rglob("record.json")).parent
    status, out, _ = robustness(
        capsys, folder, "--images", "40", "--shift-data", "digits", "--salience", folder / "checkpoints" / "last.ckpt",
        "--test", "shifts", "salient", "attacks", "corruptions_ours", "patch", "--ratios", "50", "--batch-size", "30",
    )  # fmt: skip
    assert status == 0
    for name in ("moved by 2/8", "turned by 30", "FGSM within 4/255", "jpeg compression of ours, severity 5"):
        assert name in out
    found = with_tests(read_record(folder), []).metrics
    assert "robust/data_digits" in found
    family = [found[f"robust/ours_contrast_{level}"] for level in range(1, 6)]
    assert found["robust/ours_contrast"] == pytest.approx(np.mean(family))
    assert found["robust/salient_50"] <= found["robust/nonsalient_50"]
    assert all(metrics.is_accuracy(name) for name in found if name.startswith("robust/"))


@pytest.fixture
def small(home):
    """A network of another size, in a file."""
    torch.manual_seed(0)
    save_own(ViT(ViTConfig(arch="micro/2", image_size=16, classes=10)), home / "large.safetensors")
    return home / "large.safetensors"


def test_bad_input_is_refused_in_a_sentence_before_anything_is_measured(home, small, capsys):
    folder = next(home.rglob("record.json")).parent
    assert "different sizes" in refused(capsys, folder, small, "--data", "digits")
    said = refused(capsys, "rob.yaml", "--test", "corruptions")
    assert "published for images of 224 and 32 pixels, and these networks take 8" in said
    classes = np.arange(30) % 3
    arrays = {
        name: np.zeros((30, 8, 8, 3), np.uint8) + classes[:, None, None, None].astype(np.uint8) * 60
        for name in ("x_train", "x_test")
    }
    np.savez(home / "three.npz", **arrays, y_train=classes + 20, y_test=classes + 20)
    write.make(str(home / "three.npz"), home / "three", workers=1)
    assert "does not know" in refused(capsys, "rob.yaml", "--shift-data", "./three")
    np.save(home / "salience.npy", np.zeros((5, 8, 8)))
    assert "it takes finite numbers of shape (359, 8, 8)" in refused(capsys, "rob.yaml", "--salience", "salience.npy")
    save_own(build(ViTConfig(arch="micro/2", image_size=8, classes=3)), home / "three.safetensors")
    said = refused(capsys, "rob.yaml", "--salience", "three.safetensors", "--test", "salient")
    assert "--salience three.safetensors knows 3 classes, and digits has 10" in said
    assert "no sweep file" in refused(capsys, "nothing.ckpt")
    assert "no sweep file" in refused(capsys, "rob.yaml", "nothing.ckpt")  # also the second is read first
    assert "--ratios is 150; give shares of the patches in %, from 1 to 100" in refused(
        capsys, folder, "--ratios", "50", "150"
    )
    assert "--test salient needs --salience" in refused(capsys, folder, "--test", "salient")
    save_own(build(ViTConfig(arch="R14x0.5", image_size=8, classes=10)), home / "resnet.safetensors")
    said = refused(capsys, home / "resnet.safetensors", "--data", "digits", "--test", "attended")
    assert "--test attended: ResNet has no grid of tokens that attend to each other" in said


def changed(home, **groups):
    """The records with other options or metrics."""
    for record in read_records(home / "runs")[0]:
        config = {name: record.config.get(name, {}) | options for name, options in groups.get("config", {}).items()}
        write_record(replace(record, config=record.config | config, metrics=groups.get("metrics", record.metrics)),
                     record.directory)  # fmt: skip


def test_networks_without_classes_and_studies_without_a_test_are_refused(home, capsys):
    folder = next(home.rglob("record.json")).parent
    changed(home, config={"model": {"objective": "masked_pixels"}})
    assert "was trained without classes (model.objective)" in refused(capsys, folder, "--test", "shuffle")
    changed(home, metrics={"val_acc": 0.5})
    assert "no run of rob holds test_acc" in refused(capsys, "rob.yaml", "--test", "shuffle")
    assert not list(home.rglob(FILE))


def test_a_ratio_that_blanks_nothing_or_all_is_left_out(home, capsys):
    _, _, err = robustness(capsys, "rob.yaml", "--test", "drop", "--ratios", "2", "50", "100")
    assert "note: drop_2, drop_100 left out: none or all of 16 patches are blank" in err
    assert {name for run in runs(home) for name in run.metrics if "drop" in name} == {"robust/drop_50"}
    assert "--test drop: images of 8 pixels cannot be changed so" in refused(
        capsys, "rob.yaml", "--test", "drop", "--ratios", "2"
    )


def test_a_study_without_runs_or_without_checkpoints_is_refused(home, capsys):
    assert "no finished run" in refused(capsys, "rob.yaml", "--root", "elsewhere")
    next(home.rglob("last.ckpt")).unlink()
    assert "has no checkpoint to test; train it again with run.checkpoint true" in refused(capsys, "rob.yaml")


def test_a_folder_that_cannot_be_written_is_refused(home, capsys):
    (home / "results").write_text("a file")
    said = refused(capsys, "rob.yaml", "--test", "shuffle")
    assert "--out results cannot be written to (" in said
    assert "name another folder" in said


def test_a_checkpoint_of_other_weights_is_refused(home, capsys):
    first, second = sorted(home.rglob("last.ckpt"))[:2]
    shutil.copy(first, second)
    status, _, err = robustness(capsys, "rob.yaml", "--test", "shuffle")
    assert status == 2
    assert "the checkpoint holds other weights" in err
    assert "clean" not in read_tests(second.parents[1], read_record(second.parents[1]))


def test_what_two_commands_write_at_once_is_all_there(tmp_path):
    subject = Subject(name="one", checkpoint=tmp_path / "last.ckpt", folder=tmp_path)
    names = [f"drop_{ratio}" for ratio in range(1, 41)]

    def write(name):
        write_test(subject, name, np.array([True, False]), "order", key=name, settings={})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    assert set(read_tests(tmp_path, None)) == set(names)


def test_patches_that_a_network_attends_to_are_its_own(home, capsys):
    robustness(capsys, "rob.yaml", "--test", "attended", "--ratios", "50")

    (batch,) = ShardData(shards=str(home / "digits"), batch_size=1000).eval_loader("test")
    for run in runs(home):
        network = open_network(f"{run.directory}/checkpoints/last.ckpt").network
        given = batch.images / 127.5 - 1
        with torch.no_grad():
            read = watch_attention(network, given, 17, 4)[-1].mean(1)[:, 0, 1:]  # the class token's, 4 x 4 patches
            for image, order in zip(given, read.argsort(descending=True), strict=True):
                for place in order[:8].tolist():
                    row, column = 2 * (place // 4), 2 * (place % 4)
                    image[:, row : row + 2, column : column + 2] = -1
            expected = (network(given).argmax(1) == batch.labels).numpy()
        found = np.array(read_answers(run.directory, run, "robust/attended_50"))
        assert (found != expected).mean() < 0.01
        assert run.metrics["robust/attended_50"] != run.metrics["robust/clean"]


def test_checkpoints_of_one_name_keep_their_own_numbers(home, capsys):
    files = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        (home / f"copy-{seed}").mkdir()
        files.append(home / f"copy-{seed}" / "last.safetensors")
        network = build(ViTConfig(arch="micro/2", image_size=8, classes=10))
        torch.nn.init.normal_(network.head.weight)
        save_own(network, files[-1])
    words = ("--data", "digits", "--test", "shuffle", "--images", "100")
    alone = [robustness(capsys, file, *words, "--out", f"out-{place}")[1] for place, file in enumerate(files)]
    together = robustness(capsys, *files, *words)[1]
    assert together == "".join(alone)
    assert alone[0].splitlines()[1:] != alone[1].splitlines()[1:]
