"""`vitexp sweep`: runs a study, or with `lint` resolves every cell, says what it costs, and trains nothing."""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitexp.study import space, start
from vitexp.study.cells import make_cells
from vitexp.study.lint import cost, lint
from vitexp.study.plan import PlannedCell, check_metrics, plan_cells, plan_study
from vitexp.study.run.engines import Engine, RayEngine
from vitexp.study.run.runner import PRELOAD, run_study
from vitexp.study.run.search import check_search
from vitexp.study.run.worker import fork_server
from vitexp.study.spec import Study, check_runs_here, read_study

Parse = Callable[[list[str]], Mapping[str, Any]]
Train = Callable[[list[str], str], None]
BAD_INPUT = 2
_SAMPLED = 8


def run_sweep(chosen: argparse.Namespace, parse: Parse, train: Train, examine: Parse, estimate: Parse) -> int:
    """Runs or checks a study; returns the exit status."""
    if chosen.files[0] == "lint":
        return _lint(chosen, estimate if chosen.quick else parse, examine)
    study = read_study(_only(chosen.files))
    outcome = run_study(
        study,
        parse=parse,
        train=train,
        root=chosen.root,
        workers=chosen.workers,
        threads=chosen.threads,
        retry=chosen.retry,
        stale=chosen.stale,
        extra=_extra(chosen),
        resume=["--ckpt_path=last"],
        engine=_engine(chosen, train),
    )
    return outcome.exit_status


def _engine(chosen: argparse.Namespace, train: Train) -> Engine | None:
    """The engine that was asked for; None for this machine."""
    given = [name for name in ("ray_address", "cpus_per_run", "gpus_per_run") if getattr(chosen, name) is not None]
    if chosen.engine == "local":
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} has no effect on this machine; add --engine ray")
        return None
    return RayEngine(
        train,
        preload=PRELOAD,
        address=chosen.ray_address,
        cpus=chosen.threads if chosen.cpus_per_run is None else chosen.cpus_per_run,
        gpus=chosen.gpus_per_run or 0.0,
        threads=chosen.threads,
        workers=chosen.workers,
    )


def _lint(chosen: argparse.Namespace, parse: Parse, examine: Parse) -> int:
    study = read_study(_only(chosen.files[1:]))
    check_runs_here(study)
    context, workers = fork_server(PRELOAD), chosen.workers or 1
    if study.method == "bayes":
        return _lint_search(study, chosen, parse)
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_study(study, parse=parse, context=context, root=folder, workers=workers, extra=_extra(chosen))
        check_metrics(study, planned)
        examined = [] if chosen.quick else planned
        compared = start.compare(study, examined, examine=examine, context=context, workers=workers)
    findings = [*lint(study, planned), *start.findings(study, compared)]
    _print_published(planned)
    for costs in cost(study, planned):
        print(_cost_line(**costs))
    for one in compared:
        print(start.line(one))
    for finding in sorted(findings, key=lambda finding: finding.severity):
        print(f"{finding.severity}: {finding.text}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(_total_line(planned))
    print(f"{study.path}: {len(planned)} cells parse; {errors} errors, {len(findings) - errors} notes")
    return BAD_INPUT if errors else 0


def _lint_search(study: Study, chosen: argparse.Namespace, parse: Parse) -> int:
    """Cells that are not chosen yet cannot be parsed; random points of the same space can."""
    check_search(study)
    cap = study.run_cap or 0
    cells = make_cells(list(space.sample(list(study.parameters), min(cap, _SAMPLED), 0)))
    with tempfile.TemporaryDirectory() as folder:
        context = fork_server(PRELOAD)
        planned = plan_cells(study, cells, parse=parse, context=context, root=folder, extra=_extra(chosen))
    check_metrics(study, planned)
    _print_published(planned)
    flops = max(cell.facts["train_flops"] for cell in planned)
    print(f"at most {cap} runs of up to {flops / 1e12:.3g} TFLOP each, as {len(planned)} random points say")
    print("note: points are chosen from the results so far: good for tuning, no ground for comparing arms")
    print(f"{study.path}: {len(planned)} random points of the space parse; 0 errors, 1 notes")
    return 0


def _print_published(planned: Sequence[PlannedCell]) -> None:
    for published in dict.fromkeys(cell.published for cell in planned if cell.published):
        print(f"note: {published}")


def _cost_line(arm: str, runs: int, parameters: int, steps: int, images_seen: int, train_flops: float) -> str:
    """What one arm takes."""
    return (
        f"{arm or 'all'}: {runs} runs of {steps:,} steps, {images_seen:,} images, "
        f"{train_flops / 1e12:.3g} TFLOP; {parameters:,} parameters"
    )


def _total_line(planned: Sequence[PlannedCell]) -> str:
    """What the whole study takes, finished cells included."""
    steps, flops = (sum(cell.facts[name] for cell in planned) for name in ("steps", "train_flops"))
    return f"all together: {len(planned)} runs, {steps:,} steps, {flops / 1e12:.3g} TFLOP"


def _extra(chosen: argparse.Namespace) -> list[str]:
    return [f"--run.root={chosen.root}", f"--run.wandb={chosen.wandb}", "--trainer.enable_progress_bar=false"]


def _only(files: Sequence[str]) -> str:
    if len(files) != 1:
        raise ValueError(f"one sweep file is needed, given: {' '.join(files) or 'none'}")
    return files[0]
