"""A whole run beside plain torch: the same images, losses, rates and averages, and the same numbers at the end."""

import io
import math
import tarfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vitexp import cli
from vitexp.data.module import ShardData
from vitexp.eval.fewshot import fewshot_accuracy
from vitexp.record import read_record
from vitexp.train.module import Classifier

SEED, EPOCHS, BATCH = 3, 2, 8
MEASURED = ("val_acc", "val_loss", "test_acc", "test_loss", "fewshot_2")
COMMON = {"arch": "micro/4", "lr": 0.01, "warmup_steps": 2, "clip_norm": 0.5, "weight_decay": 0.02}
RUNS = {
    "adamw": {"schedule": "cosine", "label_smoothing": 0.1, "polyak": 0.7},
    **{
        kind: {"optimizer": f"schedulefree:{kind}ScheduleFree", "schedule": "constant"}
        for kind in ("AdamW", "SGD", "RAdam")
    },
    "sgd": {"optimizer": "sgd", "schedule": "linear", "loss": "sigmoid", "decay": "kernels", "head_bias": -1.0},
}


def by_tar(shards, split):
    """Images in [-1, 1] and labels of a split, in the order of the samples, read without any code of vitexp."""
    images, labels = [], []
    for path in sorted(shards.glob(f"*-{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in sorted(tar.getmembers(), key=lambda member: member.offset):
                content = tar.extractfile(member).read()
                if member.name.endswith(".cls"):
                    labels.append(int(content))
                elif member.name.endswith(".png"):
                    images.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return (stacked - 127.5) / 127.5, torch.tensor(labels)


def rate(options, step, steps):
    """The learning rate of a step, counted from 0."""
    done = max(0.0, (step - 2) / (steps - 2))
    if options["schedule"] == "constant":
        course = options["lr"]
    elif options["schedule"] == "cosine":
        course = options["lr"] * (1 + math.cos(math.pi * done)) / 2
    else:
        course = 1e-5 + (options["lr"] - 1e-5) * (1 - done)
    return course * min(1, step / 2)


def loss_of(logits, labels, options):
    smoothing = options.get("label_smoothing", 0.0)
    if options.get("loss") == "sigmoid":
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 3).float(), reduction="none").sum(1).mean()
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def groups_of(network, options):
    """As the optimizer takes them: kernels are what is a matrix or a convolution."""
    kernels = {name for name, p in network.named_parameters() if name.endswith("weight") and p.ndim > 1}
    for name, parameter in network.named_parameters():
        decays = options.get("decay") != "kernels" or name in kernels
        yield {"params": [parameter], "weight_decay": options["weight_decay"] if decays else 0.0}


def trained_by_hand(shards, options):
    """The network with the average of its weights, and the mean training loss of each epoch."""
    images, labels = by_tar(shards, "train")
    order = ShardData(shards=str(shards), batch_size=BATCH, seed=SEED).epoch_order("train")
    torch.manual_seed(SEED)
    network = Classifier(**options, classes=3, image_size=8).network.train()
    library, _, kind = options.get("optimizer", "").partition(":")
    if library == "sgd":
        optimizer = torch.optim.SGD(groups_of(network, options), lr=1.0, momentum=0.9)
    elif library:
        optimizer = getattr(pytest.importorskip(library), kind)(groups_of(network, options), lr=1.0)
        optimizer.train()
    else:
        optimizer = torch.optim.AdamW(groups_of(network, options), lr=1.0)
    steps, history, losses = EPOCHS * len(images) // BATCH, [], []
    for step in range(steps):
        epoch, start = divmod(step * BATCH, len(images))
        rows = torch.from_numpy(order.samples(epoch, start, start + BATCH))
        loss = loss_of(network(images[rows]), labels[rows], options)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), options["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(options, step, steps)
        optimizer.step()
        losses.append(loss.item())
        history.append([p.detach().clone() for p in network.parameters()])
    if library == "schedulefree":
        optimizer.eval()
    else:
        put_average(network, history, options.get("polyak", 0.0))
    return network, np.reshape(losses, (EPOCHS, -1)).mean(1)


@torch.no_grad()
def put_average(network, history, decay):
    """The mean of the weights after each step, of which the last counts 1 and each before it `decay` times the next."""
    shares = torch.tensor([decay**age for age in reversed(range(len(history)))])
    for parameter, *values in zip(network.parameters(), *history, strict=True):
        parameter.copy_(torch.tensordot(shares / shares.sum(), torch.stack(values), 1))


@torch.no_grad()
def measured_by_hand(network, shards, options):
    """What the record of a run says at its end, from all images at once."""
    network, found = network.eval(), {}
    for split in ("val", "test"):
        images, labels = by_tar(shards, split)
        logits = network(images)
        found[f"{split}_acc"] = (logits.argmax(1) == labels).float().mean().item()
        found[f"{split}_loss"] = loss_of(logits, labels, options).item()
    features = [(network.features(images), labels) for images, labels in (by_tar(shards, s) for s in ("train", "test"))]
    draws = fewshot_accuracy(*features[0], *features[1], shots=[2], seeds=range(3), classes=3)
    return found | {"fewshot_2": sum(draws.values()) / 3}


@pytest.fixture
def fit(colours, tmp_path):
    """A run with options of the network; gives its record and the weights that it kept."""

    def run(options, *words):
        given = [f"--model.{name}={value}" for name, value in options.items()]
        place = [f"--data.shards={colours()}", f"--run.dir={tmp_path}", f"--trainer.max_epochs={EPOCHS}"]
        length = [f"--seed_everything={SEED}", f"--data.batch_size={BATCH}", "--run.shots=[2]", "--run.wandb=off"]
        quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        assert cli.main(["fit", *given, *place, *length, *quiet, *words]) == 0
        state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        kept = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
        return read_record(tmp_path), kept

    return run


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_what_plain_torch_makes_of_it(fit, colours, name):
    options = COMMON | RUNS[name]
    record, kept = fit(options)
    network, losses = trained_by_hand(colours(), options)
    for parameter, value in network.state_dict().items():
        if parameter.endswith("qkv.bias"):
            continue  # attention does not depend on the bias of its keys, so Adam moves that by rounding errors
        near = {"rtol": 0, "atol": 1e-6} if options["schedule"] == "constant" else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(kept[parameter], value, **near, msg=parameter)
    assert [value for _, value in record.curves["train_loss"]] == pytest.approx(losses, rel=1e-4)
    by_hand = measured_by_hand(network, colours(), options)
    assert {key: record.metrics[key] for key in by_hand} == pytest.approx(by_hand, rel=1e-4)


def of_checkpoint(kept, options, shards):
    network = Classifier(**options, classes=3, image_size=8).network
    network.load_state_dict(kept)
    return pytest.approx(measured_by_hand(network, shards, options), rel=1e-4)


def test_nothing_random_is_in_what_is_measured(fit, colours):
    """Dropout, augmentation and mixing are for training images alone; and all of it is of the last step's weights, also
    where that step is not the one that was validated last."""
    options = {"arch": "micro/4", "lr": 0.01, "dropout": 0.4}
    record, kept = fit(options, "--data.augment=crop_flip", "--data.mix=mixup", "--trainer.max_steps=4")
    assert record.curves["val_loss"][0][0] == 3
    assert {key: record.metrics[key] for key in MEASURED} == of_checkpoint(kept, options, colours())


def test_the_best_weights_are_those_that_were_validated(fit, colours):
    """The averaged ones, where there are any, and in every number and in the checkpoint the same."""
    options = {"arch": "micro/4", "lr": 0.02, "polyak": 0.7, "schedule": "constant"}
    record, kept = fit(options, "--run.keep=best")
    assert {key: record.metrics[key] for key in MEASURED} == of_checkpoint(kept, options, colours())


def test_the_gradient_is_clipped_before_the_step(fit, colours):
    """One step of plain SGD at rate 1 moves the weights by the norm of the gradient, here of 1e-3 and not of 0.5."""
    options = {"arch": "micro/4", "optimizer": "sgd", "lr": 1.0, "schedule": "constant", "clip_norm": 1e-3}
    _, kept = fit(options, "--trainer.max_steps=1")
    torch.manual_seed(SEED)
    start = Classifier(**options, classes=3, image_size=8).network.state_dict()
    moved = math.sqrt(sum((kept[name] - start[name]).square().sum().item() for name in start))
    assert moved == pytest.approx(1e-3, rel=0.01)


def test_the_rate_follows_the_steps_that_are_taken(fit, monkeypatch):
    """Also where two batches make one step, and the third of an epoch a step of its own."""
    rates, step = [], Classifier.optimizer_step

    def noted(module, epoch, batch, optimizer, *more, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(module, epoch, batch, optimizer, *more, **options)

    monkeypatch.setattr(Classifier, "optimizer_step", noted)
    options = {"arch": "micro/4", "lr": 0.01, "schedule": "linear", "warmup_steps": 2}
    record, _ = fit(options, "--trainer.accumulate_grad_batches=2")
    assert rates == pytest.approx([rate(options, number, 4) for number in range(4)])
    assert record.steps == 4
