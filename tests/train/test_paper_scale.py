"""The paper's own sizes: its YAMLs through the real parser, what they cost, networks on shapes alone, real batches."""

import csv
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from vitexp import cli
from vitexp.data.batch import Batch
from vitexp.data.shards import write
from vitexp.data.shards.write import Layout
from vitexp.data.sources.published_sizes import SIZES
from vitexp.eval.flops import train_flops
from vitexp.record import flatten
from vitexp.study.lint import lint
from vitexp.study.resolve import changed_values, resolved_cell
from vitexp.study.spec import read_study
from vitexp.train.command import TrainingCommand
from vitexp.train.config import ClassifyConfig

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(ROOT.glob("sweeps/*_paper.yaml"))
EXPERIMENTS = sorted(ROOT.glob("experiments/*_paper.yaml"))
# Images and classes; paper sheet 2.2. Of VTAB's tasks each run takes 1,000 images, and their classes are few.
SETS = {"jft300m": (303_000_000, 18_291), "imagenet": (1_281_167, 1000), "cifar100": (50_000, 100), "vtab": (1000, 100)}
TRIAL = ["--trainer.fast_dev_run=true"]
QUIET = [*TRIAL, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
# Paper sheet 1.1, without any head; and in millions for the ResNets, sheet 9.
HEADLESS = {
    "B/16": (85_798_656, 768), "B/32": (87_455_232, 768), "L/16": (303_301_632, 1024), "L/32": (305_510_400, 1024),
    "H/14": (630_764_800, 1280), "R50+B/32": (110_176_832, 768), "R50+B/16": (97_890_112, 768),
    "R50+L/32": (327_969_856, 1024), "R50+L/16": (315_458_624, 1024),
}  # fmt: skip
TRUNKS = {"R50x1": 23.5, "R50x2": 93.9, "R101x1": 42.5, "R152x1": 58.1, "R152x2": 232, "R200x3": 563}
PLAIN = {"pos_embed": "1d", "pos_at": "stem", "pool": "cls", "attention": "full"}
UNSEEN = (
    "model.lr",
    "model.clip_norm",
    "model.weight_decay",
    "model.warmup_steps",
    "trainer.",
    "run.",
    "study",
    "seed_",
    "data.train_",
)
"""Options that a network on shapes is the same for."""
FAST = (
    "compute_paper B/32 patch tanh", "compute_paper R50x1 auto linear", "compute_paper B/16 resnet50 tanh",
    "attention_paper B/32 axial", "pooling_time_paper gap linear", "pos_embed_paper 2d every", "masked_paper",
    "pos_embed_paper relative stem", "scaling_paper w1024d8m2048h16/32", "transfer_paper H/14 378",
)  # fmt: skip


study_of = cache(read_study)


@cache
def base_of(path):
    """An experiment's options as dotted keys."""
    return flatten(yaml.safe_load(path.read_text()))


def settings(path, cell=None):
    """A file's options as dotted keys, without the parser: its base, and what its cell says."""
    return base_of(path) if cell is None else base_of(ROOT / study_of(path).command[4]) | cell.overrides


def cells(path):
    """The cells of a study; an experiment is its own."""
    return study_of(path).cells() if path.parent.name == "sweeps" else [None]


def networks():
    """One cell for each different network of all files, by a name of what the file varies."""
    found, seen = {}, set()
    for path in SWEEPS + EXPERIMENTS:
        for cell in cells(path):
            options = {key: value for key, value in settings(path, cell).items() if not key.startswith(UNSEEN)}
            told = [str(v) for k, v in (cell.overrides if cell else {}).items() if k in options and k in factors(path)]
            key = str(sorted((key, value) for key, value in options.items() if key != "data.shards"))
            if key not in seen:
                seen.add(key)
                found[" ".join([path.stem, *dict.fromkeys(told)])] = (path, cell)
    return found


def factors(path):
    return [key for key in study_of(path).factors if not key.startswith("data.shards")]


NETWORKS = networks()
assert set(FAST) <= set(NETWORKS), sorted(NETWORKS)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A repository whose data are small images of noise, of as many classes as the real ones, and weights files."""
    folder, draw = tmp_path_factory.mktemp("paper"), np.random.default_rng(0)
    for name, (_, classes) in SETS.items():
        labels = np.append(np.arange(1100) % 7, np.repeat(classes - 1, 100))
        arrays = {"x_train": draw.integers(0, 256, (1200, 8, 8), np.uint8), "y_train": labels}
        arrays["classes"] = np.arange(classes).astype(str)
        arrays |= {"x_test": arrays["x_train"][:4], "y_test": labels[:4]}
        np.savez(folder / f"{name}.npz", **arrays)
        write.make(str(folder / f"{name}.npz"), folder / "shards" / name, layout=Layout(val_fraction=0.02))
    for name in ("experiments", "sweeps"):
        (folder / name).symlink_to(ROOT / name)
    for path in SWEEPS:
        for options in (settings(path, cell) for cell in cells(path)):
            shards, init = folder / options["data.shards"], folder / options.get("run.init", "none")
            if not shards.exists():
                shards.symlink_to(folder / "shards" / "vtab")
            if init.name != "none":  # a plan asks whose content it is, and no more
                init.parent.mkdir(exist_ok=True)
                init.write_text(init.name)
    return folder


@pytest.fixture
def words(stand_ins, monkeypatch, tmp_path):
    """The words of the command that a cell or an experiment is run with, in the repository of stand-ins."""
    monkeypatch.chdir(stand_ins)

    def words_of(path, cell=None):
        if cell is None:
            return ["fit", "--config", f"experiments/{path.name}"]
        (tmp_path / "cell.json").write_text(cell.args_json)
        return study_of(path).argv(cell, tmp_path / "cell.json")

    return words_of


@pytest.fixture
def command(words):
    """A cell parsed by the real parser, its network on the meta device."""
    return lambda path, cell: TrainingCommand(
        [*words(path, cell), *TRIAL], cli.groups(), until="planned", weights=False
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_passes_the_door_and_has_the_papers_size(name, command):
    path, cell = NETWORKS[name]
    parsed = command(path, cell)
    resolved = flatten(parsed.identity.config)
    asked = settings(path, cell)
    assert {key: resolved[key] for key in asked if key in resolved and not key.startswith("study")} == {
        key: value for key, value in asked.items() if key in resolved and not key.startswith("study")
    }
    config, found = parsed.model.config, parsed.facts()["parameters"]
    arch = f"R50+{config.arch}" if config.stem == "resnet50" else config.arch
    assert parsed.facts()["steps"] > 0
    if config.arch in TRUNKS and config.resnet != "axial":  # whose size by hand is in nn/test_resnet_axial.py
        head = (2048 * int(config.arch[-1]) + 1) * config.classes
        assert found - head == pytest.approx(TRUNKS[config.arch] * 1e6, rel=0.005)
    elif arch in HEADLESS and all(getattr(config, key) == word for key, word in PLAIN.items()):
        body, width = HEADLESS[arch]
        patch = int(config.arch.split("/")[1])
        more = (config.image_size // patch) ** 2 - (224 // patch) ** 2
        head = (width + 1) * config.classes + (config.head == "tanh") * (width + 1) * width
        assert found == body + more * width + head


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NETWORKS]
)
def test_a_loss_and_its_gradients_have_the_right_shapes(name, command):
    """The module's own loss, forward and backward, on shapes alone.

    Left out are what asks a trainer (logging, the step's number) and what looks at values (clipping): the slow test
    below has them. What is corrupted is really drawn, on the CPU.
    """
    module = command(*NETWORKS[name]).model
    config, meta = module.config, torch.device("meta")
    images = torch.empty(2, 3, config.image_size, config.image_size, device=meta)
    batch = Batch(images, torch.zeros(2, dtype=torch.long, device=meta), torch.arange(2), 2)
    if module.masked is None:
        losses = module.loss(module(images), batch)
    else:
        losses, _ = module.masked(module.network, batch, 0)
    assert losses.shape == (2,)
    losses.sum().backward()
    assert all(parameter.is_meta and parameter.grad.shape == parameter.shape for _, parameter in module.trained())
    if config.objective == "classify":
        assert module(images).shape == (2, config.classes)


def real_images(options):
    """Images of a training on the real set, by whole numbers: epochs of full and of last batches."""
    total = SETS[options["data.shards"].split("/")[1].split("-")[0]][0]
    count = options.get("data.train_images") or round(total * (1 - options["data.val_fraction"]))
    count = round(count * options.get("data.train_fraction", 1.0))
    steps = math.ceil(count / options["data.batch_size"])
    if options.get("trainer.max_steps", -1) < 0:
        return options["trainer.max_epochs"] * count
    epochs, left = divmod(options["trainer.max_steps"], steps)
    return epochs * count + left * options["data.batch_size"]


def exaflops(options):
    classes = SETS[options["data.shards"].split("/")[1].split("-")[0]][1]
    model = {key.removeprefix("model."): value for key, value in options.items() if key.startswith("model.")}
    config = ClassifyConfig(**model, image_size=options["data.image_size"], classes=classes)
    return train_flops(config, real_images(options)) / 1e18


@pytest.mark.parametrize("path", SWEEPS + EXPERIMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_cost_in_a_header_is_what_the_closed_form_says(path):
    said = re.search(r"^# Cost: ([\d,.]+\d) exaFLOP", path.read_text(), re.M)
    total = sum(exaflops(settings(path, cell)) for cell in cells(path))
    assert float(said[1].replace(",", "")) == pytest.approx(total, rel=0.02)


RATES = {
    "ViT-B/32": 8e-4, "ViT-B/16": 8e-4, "ViT-L/32": 6e-4, "ViT-L/16": 4e-4, "ViT-H/14": 3e-4,
    "ResNet50x1": 1e-3, "ResNet50x2": 1e-3, "ResNet101x1": 8e-4, "ResNet152x1": 6e-4, "ResNet152x2": 6e-4,
    "R50x1+ViT-B/32": 8e-4, "R50x1+ViT-B/16": 8e-4, "R50x1+ViT-L/32": 2e-4, "R50x1+ViT-L/16": 4e-4,
    "ResNet200x3": 6e-4,  # not in the paper; as R152x2
}  # fmt: skip
"""The learning rate of the paper's Table 3 on JFT-300M for each network of its Table 6."""


def test_the_study_of_compute_is_table_6_row_by_row_with_the_rates_of_table_3():
    rows = {}
    for cell in study_of(ROOT / "sweeps" / "compute_paper.yaml").cells():
        options = settings(ROOT / "sweeps" / "compute_paper.yaml", cell)
        arch, stem = options["model.arch"], options["model.stem"]
        name = arch.replace("R", "ResNet") if "x" in arch else f"{'R50x1+' * (stem == 'resnet50')}ViT-{arch}"
        rows[f"{name}, {options['trainer.max_epochs']}"] = options
    with (ROOT / "tests" / "paper_table6.csv").open() as file:
        printed = {row["model, epochs"]: float(row["exaFLOPs"]) for row in csv.DictReader(file, delimiter=";")}
    assert rows.keys() == printed.keys()
    printed["R50x1+ViT-L/16, 7"] = 834  # 859 is off the table's own pattern: 14 epochs cost 1668
    for row, options in rows.items():
        assert abs(exaflops(options) - printed[row]) <= 0.02 * printed[row] + 0.5, row
        assert options["model.lr"] == RATES[row.split(",")[0]], row


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_passes_the_door_and_the_lint(path, words):
    """As `sweep lint --quick` does; as trials, because the stand-ins are too few for the paper's warm-up."""
    planned = []
    for cell in cells(path):
        argv = [*words(path, cell), *TRIAL]
        planned.append(resolved_cell(cell, argv, cli.plan(argv)))
    study = study_of(path)
    errors = [finding.text for finding in lint(study, planned) if finding.severity == "error"]
    if path.stem == "vtab_paper":  # 19 names of one stand-in
        assert "one and the same run; take a value out" in errors.pop()
    assert not errors
    assert not [cell.label for cell in planned if changed_values(cell).keys() & set(study.factors)]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_set_of_the_papers_studies_has_the_published_size_its_cost_is_of(path):
    for cell in cells(path):
        name = Path(settings(path, cell)["data.shards"]).name
        images, classes = SETS[name.split("-")[0]]
        assert SIZES[name].train == images
        assert SIZES[name].classes == classes or name.startswith("vtab-")


BATCHES = [
    *[(path.stem, "") for path in EXPERIMENTS],
    ("compute_paper", "R50x1"),
    ("adam_sgd_paper", "R50x1 clip_norm=0.0"),
    ("pooling_time_paper", "gap"),
    ("attention_paper", "axial"),
    ("pos_embed_paper", "2d"),
    ("vtab_paper", "pets"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label"), BATCHES)
def test_the_papers_size_trains_a_batch(name, label, words, tmp_path, stand_ins):
    path = next(path for path in (SWEEPS if label else EXPERIMENTS) if path.stem == name)
    cell = next(c for c in cells(path) if c is None or all(word in c.label for word in label.split()))
    small = ["--data.batch_size=2", "--data.val_fraction=0.01", "--data.workers=0"]
    assert cli.main([*words(path, cell), *small, *QUIET]) == 0
    assert not list(stand_ins.rglob("record.json")), "a trial leaves no record"
