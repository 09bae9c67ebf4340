"""A study file: a W&B sweep YAML, read strictly, and the cells that it expands to.

W&B's schema knows no keys of ours, so what the analysis must know stands among the parameters, as fixed `study.*`
values.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import yaml

from vitexp import metrics, strict
from vitexp.checked import checked
from vitexp.record import check_name, flatten
from vitexp.study import space
from vitexp.study.arm import spelling
from vitexp.study.cells import AS_TEXT, DEFAULT_COMMAND, SEED, Cell, arguments_of_vitexp, expand, make_cells, varying
from vitexp.study.lines import MEASURED, SHARDS, check_groups, check_lines

if TYPE_CHECKING:
    from pandas import DataFrame

    from vitexp.record import RunRecord
    from vitexp.study.select import Root

# The keys that W&B's sweep schema knows; it refuses all others.
TOP_KEYS = (
    "program", "method", "metric", "parameters", "command", "name", "description", "project", "entity", "run_cap",
    "early_terminate", "controller", "metrics", "scheduler", "job", "image_uri", "kind", "apiVersion",
)  # fmt: skip
Images = Literal["these", "such"]
_TYPES = {"program": str, "metric": dict[str, Any], "command": list[Any], "run_cap": int}
"""Of those that are read here."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What the analysis of a study must know; none of it changes a run."""

    name: str = "single"
    """Names the study's directory under run.root"""
    title: str = ""
    """Heading of the table or figure"""
    baseline: dict[str, Any] = field(default_factory=dict)
    """The arm that all others are compared with: dotted key and value, for example {model.pos_embed: 1d}"""
    rows: list[str] = field(default_factory=list)
    """Dotted keys whose values make the rows of the table"""
    columns: list[str] = field(default_factory=list)
    """Dotted keys whose values make the columns of the table"""
    metrics: list[str] = field(default_factory=lambda: ["test_acc"])
    """Metrics to report, as the records name them"""
    primary: list[str] = field(default_factory=list)
    """Of these metrics the ones that verdicts are about, as one family; the others are exploratory (default: all)"""
    images: Images = "such"
    """What intervals are about: the accuracy on these test images, or on images like these"""
    margin: float | None = None
    """The difference in accuracy (0..1) below which two arms count as equivalent; without it none do"""
    tune: list[str] = field(default_factory=list)
    """Dotted keys that are tuned in each arm, rather than compared"""
    together: list[list[str]] = field(default_factory=list)
    """Dotted keys that change together by intention and count as one factor, in lists of two or more, for example
    [[model.arch, trainer.max_epochs]]; other factors that no arm separates are an error"""
    select: str = "val_acc"
    """The metric that chooses the tuned values; never a test metric"""
    paper: str = ""
    """The published table to print beside ours, for example table8"""
    x: str = ""
    """The horizontal axis of a curve: a dotted key, for example data.train_images, or a cost that the records hold:
    train_flops, relative_flops (the baseline is 1), parameters, train_seconds"""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """The arms on each line of a curve against a cost, by the values of one factor, for example {Depth: [w32d2m64h2/4,
    w32d4m64h2/4]}; without it the lines are families of networks"""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """The data sets of a suite by the name of their group, for example {natural: [digits]}: also prints the means"""
    expected: dict[str, Any] = field(default_factory=dict)
    """A published result that `vitexp reproduce` compares with: metric, source, differs, arms with a value each"""

    def __post_init__(self) -> None:
        check_name(self.name, "study.name")


@dataclass(frozen=True)
class Study:
    """A sweep file that was read and found sound, and what the runs of its cells gave.

    >>> study = read_study("sweeps/pos_embed.yaml")
    >>> study.name, len(study.cells())
    ('pos_embed', 40)
    """

    path: Path
    config: StudyConfig
    sha256: str = ""
    method: str = "grid"
    program: str | None = None
    command: tuple[str, ...] = ()
    parameters: tuple[space.Parameter, ...] = ()
    run_cap: int | None = None
    metric: dict[str, Any] = field(default_factory=dict)
    early_terminate: dict[str, Any] = field(default_factory=dict)
    known: tuple[Cell, ...] = ()
    """The cells, where they are known from the runs and the sweep file is not read."""

    @property
    def name(self) -> str:
        """The name of the study's directory."""
        return self.config.name

    def cells(self, seed: int = 0) -> list[Cell]:
        """All cells in W&B's order; `seed` draws the points of a random search.

        Raises: ValueError for a search that cannot be laid out beforehand.
        """
        if self.known:
            return list(self.known)
        if self.method == "grid":
            return list(self._grid)
        if self.method != "random":
            raise ValueError(
                f"{self.path}: method {self.method} chooses each cell from the results so far, so its points are known "
                "and ranked by `vitexp sweep` alone, and are no arms to compare; put the best ones in a grid with seeds"
            )
        if self.run_cap is None:
            raise ValueError(f"{self.path}: a random search has no end of its own; add run_cap: 20 (or another number)")
        return make_cells(list(space.sample(list(self.parameters), self.run_cap, seed)))

    @cached_property
    def _grid(self) -> list[Cell]:
        return make_cells(list(itertools.islice(space.grid(list(self.parameters)), self.run_cap)))

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """The dotted keys whose values differ between cells, the seed among them."""
        if self.method == "bayes":
            walked = [parameter.name for parameter in self.parameters if not parameter.fixed]
            return tuple(sorted(name for name in walked if name.split(".")[0] != "study"))
        return varying([cell.overrides for cell in self.cells()])

    @property
    def arm_factors(self) -> tuple[str, ...]:
        """The factors without the seed."""
        return tuple(key for key in self.factors if key != SEED)

    def argv(self, cell: Cell, json_path: str | Path) -> list[str]:
        """The arguments after the word vitexp; the cell's own are in a file at `json_path` if the command wants one."""
        return arguments_of_vitexp(expand(self.command, self.program, cell.arguments, str(json_path)))

    # What its runs gave. These import late, because the modules that count build on this one.

    def records(self, runs: "Root" = "runs", where: Mapping[str, Any] | None = None) -> "list[RunRecord]":
        """The finished runs of this study's cells below the folder `runs`, arm by arm, in the order of their seeds."""
        from vitexp.study.select import select

        return [run for arm in select(self, runs, where).arms for _, run in sorted(arm.runs.items())]

    def table(self, runs: "Root" = "runs", where: Mapping[str, Any] | None = None) -> "DataFrame":
        """The numbers of `vitexp table` as a pandas frame: one row for each arm and metric, nothing rounded.

        Columns: the factors; `metric`; `n` seeds with `mean`, `sd` and the 95% interval `low` to `high`; the paired
        `difference` to the baseline with its simultaneous interval `difference_low` to `difference_high`, `p_adjusted`
        and `verdict`. Accuracies are
        shares (0 to 1). `where` keeps only runs whose config has these values, by dotted key. Cautions about the runs
        are warned about, and stand with the notes in `frame.attrs`.

        Raises: ValueError when no run is finished, none holds a metric of the study, or pandas is not installed.
        """
        from vitexp.study.frame import as_frame
        from vitexp.study.table import make_table

        return as_frame(make_table(self, runs, where))

    def curve(self, runs: "Root" = "runs", where: Mapping[str, Any] | None = None) -> "DataFrame":
        """The points of `vitexp curve` as a pandas frame: one row for each metric, arm, and data size or cost.

        Raises: ValueError when the study varies neither, when its records make no curve, or without pandas.
        """
        from vitexp.study.curve import make_curve
        from vitexp.study.frame import as_frame

        return as_frame(make_curve(self, runs, where))


def read_study(path: str | Path) -> Study:
    """Reads and checks a sweep file. What its runs gave: `Study.table`, `Study.curve`, `Study.records`.

    >>> read_study("sweeps/pos_embed.yaml").arm_factors
    ('model.pos_at', 'model.pos_embed')

    Raises: ValueError naming the file, the place in it, and what to write instead.
    """
    path = Path(path)
    try:
        content = strict.read(path).encode()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); give a sweep file, such as one of sweeps/"
        ) from error
    return parse_study(path, content)


def as_study(sweep: str | Path | Study) -> Study:
    """The study in a sweep file, or one that was read already."""
    return sweep if isinstance(sweep, Study) else read_study(sweep)


def check_runs_here(study: Study) -> None:
    """Raises: ValueError for a sweep that needs W&B's server to run as it says."""
    if study.early_terminate:
        raise ValueError(
            f"{study.path}: early_terminate needs the controller of W&B, so only `wandb agent` runs this as it says; "
            "take it out to check or run it here"
        )


def parse_study(path: Path, content: bytes) -> Study:
    """Checks the text of a sweep, whose place is `path`. Raises: ValueError saying where, and what to write instead."""
    try:
        study = _study(path, content)
        if study.method in ("grid", "random"):
            _check_cells(study)
    except (ValueError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    return study


def _study(path: Path, content: bytes) -> Study:
    sweep = strict.load(content)
    if not isinstance(sweep, Mapping) or not isinstance(sweep.get("parameters"), Mapping):
        raise ValueError("this is no sweep: there is no `parameters:` block at its top")
    if unknown := [key for key in sweep if key not in TOP_KEYS]:
        raise ValueError(f"unknown top-level key {unknown[0]!r}; a sweep takes {', '.join(TOP_KEYS)}")
    top = {key: checked(sweep[key], kind, key) for key, kind in _TYPES.items() if key in sweep}
    if top.get("run_cap", 1) < 1:
        raise ValueError(f"run_cap is {top['run_cap']}; give a whole number of 1 or more")
    if sweep.get("method") not in ("grid", "random", "bayes"):
        raise ValueError(f"method is {sweep.get('method')!r}; write grid, random or bayes")
    command = tuple(map(str, top.get("command", DEFAULT_COMMAND)))
    strict.check_values(sweep["parameters"], "parameters", as_text=not AS_TEXT.isdisjoint(command))
    name, goal = (top.get("metric", {}).get(key) for key in ("name", "goal"))
    if isinstance(name, str) and goal in ("maximize", "minimize") and metrics.is_judged(name):
        metrics.check_goal(name, goal)  # a search, which needs both, is checked further
    parameters = tuple(space.read_parameters(sweep["parameters"]))
    return Study(
        path=path,
        config=make_config(_study_parameters(parameters)),
        sha256=hashlib.sha256(content).hexdigest(),
        method=sweep["method"],
        program=top.get("program"),
        command=command,
        parameters=parameters,
        run_cap=top.get("run_cap"),
        metric=top.get("metric", {}),
        early_terminate=sweep.get("early_terminate") or {},
    )


def _study_parameters(parameters: Sequence[space.Parameter]) -> dict[str, Any]:
    """The fixed `study.*` parameters, dotted or as one block."""
    given: dict[str, Any] = {}
    for parameter in (one for one in parameters if one.name.split(".")[0] == "study"):
        if not parameter.fixed:
            raise ValueError(f"{parameter.name} varies, but the analysis of a study is one; give it as `value:`")
        value = parameter.settings.get("value", parameter.settings.get("values", [None])[0])
        given |= value if parameter.name == "study" else {parameter.name.removeprefix("study."): value}
    if "name" not in given:
        raise ValueError("there is no study name; add `study.name: {value: NAME}` under parameters")
    return given


def make_config(given: Mapping[str, Any]) -> StudyConfig:
    """The settings `study.*`. Raises: ValueError for one that is unknown or of another type, saying what to give."""
    types = get_type_hints(StudyConfig) | {"images": str}
    if unknown := [name for name in given if name not in types]:
        raise ValueError(f"unknown parameter study.{unknown[0]}; the study takes {', '.join(types)}")
    config = StudyConfig(**{name: checked(value, types[name], f"study.{name}") for name, value in given.items()})
    if empty := [name for name, values in (config.lines | config.groups).items() if not values]:
        raise ValueError(f"study.lines or study.groups has {empty[0]} without a value; name one or more")
    if config.images not in (about := get_args(Images)):
        raise ValueError(f"study.images is {config.images!r}; give {' or '.join(about)}")
    if unreported := [metric for metric in config.primary if metric not in config.metrics]:
        raise ValueError(
            f"study.primary names {unreported[0]}, which study.metrics does not; there are {', '.join(config.metrics)}"
        )
    check_difference(config.margin, "study.margin")
    if any(len(keys) < 2 for keys in config.together):
        raise ValueError(
            f"study.together is {config.together}; give a list of lists of two or more dotted keys, such as "
            "[[model.arch, trainer.max_epochs]]"
        )
    every = [key for keys in config.together for key in keys]
    if twice := [key for key in every if every.count(key) > 1]:
        raise ValueError(f"study.together names {twice[0]} twice; put all keys that go with it into one list")
    return replace(config, baseline=flatten(config.baseline))


def check_difference(size: float | None, where: str) -> None:
    """Raises: ValueError for what is no difference of accuracies, such as one in per cent; None is accepted."""
    if size is not None and not 0 < size < 1:
        raise ValueError(f"{where} is {size:g}; give a difference in accuracy between 0 and 1, such as 0.01")


def _check_cells(study: Study) -> None:
    """Every cell can be started, and what the analysis names is there."""
    cells, config = study.cells(), study.config
    study.argv(cells[0], "cell.json")
    known = set().union(*(cell.overrides for cell in cells))
    named = {
        "rows": config.rows,
        "columns": config.columns,
        "tune": config.tune,
        "together": [key for keys in config.together for key in keys],
        "x": [config.x] if config.x not in ("", *MEASURED) else [],
        "baseline": config.baseline,
    }
    for setting, absent in ((setting, key) for setting, keys in named.items() for key in keys if key not in known):
        raise ValueError(
            f"study.{setting} names {absent}, which no parameter sets; there are {', '.join(sorted(known))}"
            + (f"; or a cost, which the runs record: {', '.join(MEASURED)}" if setting == "x" else "")
        )
    compared = [
        {key: value for key, value in cell.overrides.items() if key != SEED and key not in config.tune}
        for cell in cells
    ]
    check_lines(config.x, config.lines, compared, config.baseline)
    if config.groups:
        check_groups(config.groups, list(dict.fromkeys(cell.overrides.get(SHARDS) for cell in cells)))
    if wrong := [cell.seed for cell in cells if cell.seed is not None and type(cell.seed) is not int]:
        raise ValueError(f"{SEED} is {wrong[0]!r}; write whole numbers without quotes, such as [0, 1, 2]")
    # null: what an arm does not set
    wanted = spelling(config.baseline)
    if not any(spelling({key: cell.overrides.get(key) for key in config.baseline}) == wanted for cell in cells):
        raise ValueError(f"no cell is the baseline {config.baseline}; name values that the parameters take")
