"""The certificates of a study's arms: made before they train, kept in the study's folder, counted below its table.

Arms that differ only in how they are updated share one. Edited parts, other code and other libraries need a new one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitexp.record import cell_fingerprint, digest, write_atomically
from vitexp.source import package_versions, source_hash
from vitexp.study.arm import Arm
from vitexp.study.lint import arms_of, partner_of
from vitexp.study.resolve import ResolvedCell, parse_all
from vitexp.study.run.processes import Parse
from vitexp.study.spec import Study

FILE_NAME = "certificates.json"
MOST_PARAMETERS = 100_000_000
"""Of a network that is certified before a sweep: the checks hold several of it in memory."""
_MOST_WORKERS = 4
Cells = Sequence[ResolvedCell]
_UPDATES = {
    "lr", "weight_decay", "clip_norm", "warmup_steps", "schedule", "polyak", "loss", "label_smoothing", "objective",
    "masked_share",
}  # fmt: skip
"""Options of `model` that no check depends on."""


def certify_arms(
    study: Study, waiting: Cells, cells: Cells, certify: Parse, root: str | Path, workers: int
) -> tuple[dict[str, str], list[str]]:
    """Certifies each network of the cells that wait against its baseline among all cells, unless that was done before.

    Returns why cells are not to train, by run directory, and lines for the reader.
    Raises: ValueError where a certificate cannot be made, as when a part's file has changed since it was parsed.
    """
    path, arms = Path(root) / study.name / FILE_NAME, arms_of(study, waiting)
    small = {arm: of for arm, of in arms.items() if (of[0].facts.get("parameters") or 0) <= MOST_PARAMETERS}
    asked = {arm: _asked(of[0], partner_of(of[0], study, cells)) for arm, of in small.items()}
    keys, kept = {arm: _key(one) for arm, one in asked.items()}, _read(path)
    missing = {keys[arm]: one for arm, one in asked.items() if keys[arm] not in kept["networks"]}
    kept["networks"] |= _checked(study, missing, certify, workers)
    kept["cells"] |= {cell_fingerprint(cell.config): keys[arm] for arm, members in small.items() for cell in members}
    failed = {arm: found for arm, key in keys.items() if (found := kept["networks"][key]["failed"])}
    notes = [f"{len(arms) - len(small)} arms have more than {MOST_PARAMETERS:,} parameters and are not certified"]
    notes = notes if len(small) < len(arms) else []
    if small:
        write_atomically(path, json.dumps(kept, indent=1) + "\n")
        notes.append(f"certified: {len(small) - len(failed)} of {len(arms)} arms ({len(missing)} networks checked now)")
    return {cell.run_directory: _sentence(arm, found) for arm, found in failed.items() for cell in small[arm]}, notes


def _checked(study: Study, missing: Mapping[str, Any], certify: Parse, workers: int) -> dict[str, Any]:
    """How many checks each network went through, and what those found that failed."""
    texts = [[json.dumps(one)] for one in missing.values()]
    answers = parse_all(certify, texts, min(workers, _MOST_WORKERS)) if texts else []
    found = {}
    for key, answer in zip(missing, answers, strict=True):
        if isinstance(answer, str):
            raise ValueError(f"{study.path}: an arm cannot be certified: {answer}")
        failed = [f"{one['check']}: {one['text']}" for one in answer["checks"] if one["verdict"] == "FAILS"]
        found[key] = {"checks": len(answer["checks"]), "failed": failed}
    return found


def _sentence(arm: str, failed: Sequence[str]) -> str:
    more = f" (and {len(failed) - 1} more, which vitexp selfcheck shows)" if len(failed) > 1 else ""
    return f"{arm} is not trained: {failed[0]}{more}"


def _asked(cell: ResolvedCell, partner: ResolvedCell) -> dict[str, Any]:
    """The arguments of `vitexp.tools.selfcheck.certified`."""
    both = {name: dict(one.config["model"]) for name, one in (("model", cell), ("baseline", partner))}
    return both | {"seed": cell.seed or 0}


def _key(asked: Mapping[str, Any]) -> str:
    """A digest of what a certificate depends on; seeds are none of it."""
    both = [{k: v for k, v in asked[name].items() if k not in _UPDATES} for name in ("model", "baseline")]
    return digest([both, source_hash(), package_versions()])


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The file; one that is absent or damaged holds nothing, and is made anew."""
    try:
        found = json.loads(path.read_text())
        return {name: dict(found[name]) for name in ("networks", "cells")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"networks": {}, "cells": {}}


def note_of(arms: Iterable[Arm], folder: Path) -> list[str]:
    """How many arms of a table were certified, in one line; none where no arm was."""
    kept, runs = _read(folder / FILE_NAME), [next(iter(arm.runs.values())) for arm in arms if arm.runs]
    found = [kept["networks"].get(kept["cells"].get(cell_fingerprint(run.config), "")) for run in runs]
    checks = [one["checks"] for one in found if one and not one["failed"]]
    return [f"certified before training: {len(checks)} of {len(runs)} arms, {checks[0]} checks each"] if checks else []
