"""`vitexp sweep`: runs a study, or with `lint` resolves every cell, says what it costs, and trains nothing."""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial

from vitexp.study import space
from vitexp.study.cells import make_cells
from vitexp.study.lint import costs, lint, starts
from vitexp.study.resolve import ResolvedCell, check_metrics, resolve_cells
from vitexp.study.run.engines import RayEngine
from vitexp.study.run.runner import PRELOAD, run_study
from vitexp.study.run.search import check_search
from vitexp.study.run.worker import Parse, Train, preload
from vitexp.study.spec import Study, check_runs_here, read_study

BAD_INPUT = 2
_SAMPLED = 8


def run_sweep(chosen: argparse.Namespace, parse: Parse, train: Train, examine: Parse, estimate: Parse) -> int:
    """Runs or checks a study; returns the exit status."""
    checks = chosen.files[0] == "lint"
    files = chosen.files[checks:]
    if len(files) != 1:
        raise ValueError(f"one sweep file is needed, given: {' '.join(files) or 'none'}")
    study = read_study(files[0])
    if checks:
        return _lint(study, chosen, estimate if chosen.quick else parse, examine)
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


def _engine(chosen: argparse.Namespace, train: Train) -> RayEngine | None:
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


def _lint(study: Study, chosen: argparse.Namespace, parse: Parse, examine: Parse) -> int:
    check_runs_here(study)
    preload(PRELOAD)
    workers = chosen.workers or 1
    with tempfile.TemporaryDirectory() as folder:
        resolve = partial(resolve_cells, study, parse=parse, root=folder, workers=workers, extra=_extra(chosen))
        if study.method == "bayes":
            # Cells that are not chosen yet cannot be parsed; random points of the same space can.
            check_search(study)
            points = space.sample(study.parameters, min(study.run_cap or 0, _SAMPLED), 0)
            return _say_search(study, resolve(make_cells(list(points))))
        cells = resolve(study.cells())
        check_metrics(study, cells)
        beside = [] if chosen.quick else starts(study, cells, examine=examine, workers=workers)
    findings = [*lint(study, cells), *(finding for _, found in beside for finding in found)]
    findings.sort(key=lambda finding: finding.severity)
    errors = sum(finding.severity == "error" for finding in findings)
    *arms, together = costs(study, cells)
    _say(
        *_published(cells),
        *arms,
        *(line for line, _ in beside),
        *(f"{severity}: {text}" for severity, text in findings),
        together,
        f"{study.path}: {len(cells)} cells parse; {errors} errors, {len(findings) - errors} notes",
    )
    return BAD_INPUT if errors else 0


def _say_search(study: Study, cells: Sequence[ResolvedCell]) -> int:
    check_metrics(study, cells)
    flops = max(cell.facts["train_flops"] for cell in cells) / 1e12
    _say(
        *_published(cells),
        f"at most {study.run_cap} runs of up to {flops:.3g} TFLOP each, as {len(cells)} random points say",
        "note: points are chosen from the results so far: good for tuning, no ground for comparing arms",
        f"{study.path}: {len(cells)} random points of the space parse; 0 errors, 1 notes",
    )
    return 0


def _say(*lines: object) -> None:
    print(*lines, sep="\n")


def _published(cells: Sequence[ResolvedCell]) -> list[str]:
    return [f"note: {published}" for published in dict.fromkeys(cell.published for cell in cells) if published]


def _extra(chosen: argparse.Namespace) -> list[str]:
    return [f"--run.root={chosen.root}", f"--run.wandb={chosen.wandb}", "--trainer.enable_progress_bar=false"]
