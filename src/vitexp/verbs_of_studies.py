"""The commands that run studies and read their records, as entries of the table in verbs.py."""

from vitexp.verb import Verb, count, flag, row, share

_ROOT = row("--root", default="runs", help="folder of the records (default: runs)")
_RESULTS = row("--results", default="results", help="folder for what is written (default: results)")
_WANDB = "the runs of a W&B sweep instead of those below --root; without FILE the study is the sweep's own"
_PLACE = ("wandb", "ENTITY/PROJECT/SWEEP")
_FROM = row("--from", dest="source", nargs="+", default=[], metavar=_PLACE, help=_WANDB)
_WHERE = "only runs with this in their config"
_FILE = row(
    "file", metavar="FILE", nargs="?", help="the study's sweep file, or a CSV file with columns arm, seed and metrics"
)
_BASELINE = "the arm of a CSV file that others are compared with (default: its first)"
_WORKERS = row("--workers", type=count, help="cells at a time (default: one per core)")
_JSON = "print one JSON document instead (docs/json.md)"
_STUDY = (
    _FILE,
    _FROM,
    _ROOT,
    _RESULTS,
    row("--where", action="append", default=[], metavar="KEY=VALUE", help=_WHERE),
)

_RAY = "beyond this machine"
_STALE = (
    "finished cells made by other code or other versions of libraries: keep them, or set them aside (in ROOT-aside) "
    "and train them again (default: keep)"
)
_QUICK = (
    "lint: leave out initial weights and orders (large networks take seconds), and take published sizes for known data "
    "sets that are not here"
)
_MODES = ["off", "offline", "online", "auto"]
_ENGINES = ["local", "ray"]
_UNTIL = (
    "add seeds at looks that are planned before the first run: arms that are decided stop, the others get more, and "
    "all looks together err in at most 5 %% of studies"
)
_AGENTS = (
    "--until-decided: train nothing, but write the cells up to the next look to FILE, a grid for `wandb sweep`, whose "
    "agents share --root"
)
_SWEEP = Verb(
    "sweep",
    "run every cell of a study that has no finished record (sweep lint FILE only checks it)",
    "vitexp.cli:sweep",
    (
        row("files", nargs="+", metavar="[lint] FILE", help="a sweep file, such as sweeps/pos_embed.yaml"),
        _WORKERS,
        row("--threads", type=count, default=1, help="threads per cell (default: 1)"),
        _ROOT,
        flag("--retry", "run failed cells again, from their first step"),
        flag("--until-decided", _UNTIL),
        row("--budget", type=count, metavar="RUNS", help="most runs of --until-decided (default: twice the file's)"),
        row("--agents", metavar="FILE", help=_AGENTS),
        row("--stale", choices=["keep", "rerun"], default="keep", help=_STALE),
        row("--wandb", choices=_MODES, default="off", help="W&B mode (default: off)"),
        flag("--quick", _QUICK),
        flag("--json", f"lint: {_JSON}"),
        row("--engine", group=_RAY, choices=_ENGINES, default="local", help="what runs cells (default: local)"),
        row("--ray-address", group=_RAY, help="a running cluster, such as auto or HOST:6379 (default: a new one)"),
        row("--cpus-per-run", group=_RAY, type=share, help="Ray: CPUs per cell (default: --threads)"),
        row("--gpus-per-run", group=_RAY, type=share, help="Ray: GPUs per cell, such as 0.5 (default: 0)"),
    ),
    "Runs the cells of a W&B sweep file on this machine, without an account. Finished cells are skipped; interrupted "
    "ones resume. `vitexp sweep lint FILE` parses every cell and trains nothing.",
)

_CONTROLS = Verb(
    "controls",
    "train two studies whose answers are known, and say whether the tables give them; exit status 1 if not",
    "vitexp.cli:controls",
    (_WORKERS, _ROOT, _RESULTS, flag("--json", _JSON)),
    "Tests the whole chain, from data to verdicts, on drawn pictures: where positions decide, every kind must be "
    "better than none, and none at chance; where they do not, all must be equivalent; and no arm may differ from "
    "itself under other seeds. Finished cells are skipped. About 5 minutes on 2 cores.",
)

_REPRODUCE = Verb(
    "reproduce",
    "known results of others: list them, or train one with several seeds and compare; exit status 1 if not alike",
    "vitexp.cli:reproduce",
    (
        row("name", nargs="?", metavar="NAME", help="a known result (default: list them)"),
        _WORKERS,
        _ROOT,
    ),
    "Without a NAME lists what is known, with source and cost. With one, trains the runs that are missing, and prints "
    "expected, obtained, interval, cost, and whether they agree.",
)

_PLAN = Verb(
    "plan",
    "how many seeds and test images a study takes to decide, and what that costs, from the runs of a pilot",
    "vitexp.cli:plan_study",
    (
        _FILE,
        _FROM,
        _ROOT,
        row("--effect", type=share, help="difference in accuracy to be shown (default: 0.01)"),
        row("--margin", type=share, help="margin of equivalence (default: study.margin, or 0.02)"),
        row(
            "--pilot", type=count, metavar="SEEDS", help="train so many seeds of each arm first, where they are missing"
        ),
        row("--baseline", metavar="ARM", help=_BASELINE),
        flag("--json", _JSON),
    ),
)

_ARM = "runs/STUDY/CELL, a study of one arm, or wandb:ENTITY/PROJECT/SWEEP"
_ABOUT = "what the interval is about: exactly these test images, or images like them (default: such)"
_STUDIES = "sweep files, CSV files, or folders of runs (default: every study below --root)"
_FOUND = "where other commands have written; SVG and CSV files in its STUDY folders are taken in (default: results)"
_REPORTS = (
    Verb(
        "table",
        "mean, interval and paired difference of a study's arms, beside the paper's; as Markdown, CSV and LaTeX too",
        "vitexp.report.command:show_table",
        (
            *_STUDY,
            flag("--figure", "draw the table too: dots.png and dots.svg"),
            row("--baseline", metavar="ARM", help=_BASELINE),
            row("--margin", type=share, help="margin of equivalence of a CSV file"),
            flag("--json", _JSON),
        ),
    ),
    Verb(
        "curve",
        "accuracy against data size, or against the cost of the runs (study.x), as PNG, SVG and CSV",
        "vitexp.report.command:show_curve",
        (*_STUDY, flag("--json", _JSON)),
    ),
    Verb(
        "report",
        "one offline HTML page of studies: tables, pictures, claims, and behind every number its runs",
        "vitexp.report.command:show_report",
        (
            row("studies", nargs="*", metavar="STUDY", help=_STUDIES),
            *_STUDY[1:3],
            row("--results", default="results", help=_FOUND),
            row("--out", default="report", help="folder for report.html (default: report)"),
            _STUDY[-1],
        ),
    ),
    Verb(
        "claims",
        "what the runs say about each claim of the ViT paper: supported, contradicted, undecided",
        "vitexp.report.command:show_claims",
        (
            row("paths", nargs="*", metavar="PATH", help="sweep files, or folders of runs"),
            _FROM,
            _ROOT,
            _RESULTS,
            flag("--json", _JSON),
        ),
        "Tests every claim of the ViT paper that a study touches against its runs, and writes the verdicts as "
        "Markdown, CSV and JSON. Without a PATH it reads every study below --root. Trains nothing.",
    ),
    Verb(
        "compare",
        "is a candidate better than a base? exit status 0 better, 10 equivalent, 20 worse, 30 undecided",
        "vitexp.report.command:show_compared",
        (
            *(row(side, metavar=side.upper(), help=_ARM) for side in ("base", "candidate")),
            row("--margin", type=share, help="the difference below which both count as equivalent, such as 0.01"),
            row("--metric", default="test_acc", help="what is compared (default: test_acc)"),
            row("--images", choices=["these", "such"], default="such", help=_ABOUT),
            flag("--json", _JSON),
            row("--ledger", metavar="FILE", help="a campaign: candidates and looks share an error of 5 %%"),
            row("--candidates", metavar="N", type=count, help="how many the campaign will try (default: open)"),
        ),
    ),
    Verb(
        "diff",
        "what makes two runs different: config, code, data, versions, devices, numbers, answers to images",
        "vitexp.report.command:show_diff",
        tuple(row(side, metavar="RUN", help="a run's folder or record") for side in ("one", "other")),
    ),
)

_TESTS = (
    "shuffle", "drop", "salient", "shifts", "corruptions", "corruptions_ours", "attacks", "patch",
    "attended",
)  # fmt: skip
_WHAT = "which tests (default: all that need no more than the networks)"
_SALIENT = (
    "what orders patches for salient: a network, by its gradient, or a .npy file of shape (images, height, width) "
    "(default: the first run of the study's baseline)"
)
_ROBUSTNESS = Verb(
    "robustness",
    "networks on changed test images: patches shuffled and blanked, shifts, corruptions, attacks; table and figure",
    "vitexp.cli:robustness",
    (
        row("subjects", nargs="+", metavar="STUDY|RUN|CKPT", help="sweep files, folders of runs, or checkpoints"),
        row("--test", nargs="+", default=[], choices=_TESTS, metavar="TEST", help=f"{_WHAT}: {', '.join(_TESTS)}"),
        row("--ratios", nargs="+", type=count, default=[10, 30, 50, 70, 90], help="patches that are blanked, %%"),
        row("--salience", metavar="NETWORK|FILE", help=_SALIENT),
        row("--shift-data", metavar="SHARDS", help="test images from elsewhere, of the same classes"),
        row("--data", metavar="SHARDS", help="the test images (default: those of the runs)"),
        row("--images", type=count, metavar="N", help="measure N of the test images, the same for all (default: all)"),
        row("--batch-size", type=count, default=250, help="images at a time (default: 250)"),
        _ROOT,
        row("--out", default="results", help="folder for tables and figures (default: results)"),
        flag("--wandb", "add the numbers to the runs on W&B, for those that were logged there"),
        flag("--allow-import", "import parts of somebody's own that the checkpoints name, which runs their code"),
    ),
    "Every network sees the same changed images, and each answer is kept beside its run, so that table, curve and "
    "claims have them as metrics robust/TEST. What is there already is not measured again.",
)

STUDIES = (_SWEEP, _CONTROLS, _REPRODUCE, _PLAN, _ROBUSTNESS, *_REPORTS)
