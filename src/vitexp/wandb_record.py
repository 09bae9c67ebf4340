"""A run record as W&B keeps it: flat config keys at the start, summary numbers at the end, and back again.

Both wings meet here: training writes these keys, studies read them from a server without the run's folder.
"""

import base64
import json
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from vitexp.record import RunRecord, flatten, open_metrics, record_of, result_config

ATTEMPTS = 5
"""A server that restarts gets this many chances, a second apart."""
CONNECT_SECONDS = 3.0
_FACTS = (
    "cell", "fingerprint", "parameters", "planned_steps", "data", "code", "versions", "device", "started", "format",
)  # fmt: skip
"""Fields that are known when a run starts; they stand under `record.`."""
_OUTCOME = (
    "images_seen", "steps", "epochs", "train_flops", "train_seconds", "compile_seconds", "learning", "answers",
    "finished", "reason",
)  # fmt: skip
"""Fields that are known when it has ended; they stand in the summary under their own names."""
_PLAIN = ("data_size", "cell")
"""What a panel plots or groups by: W&B's filters do not find keys with dots."""
_WITHHELD = "withheld"
"""The test numbers of a candidate, with its answers, as one word that no panel plots and nobody reads by chance."""


def start_config(record: RunRecord) -> dict[str, Any]:
    """What a W&B config holds of a run: the hyper-parameters as dotted keys, the axis of a curve, the run's facts."""
    facts = flatten({"record": {name: getattr(record, name) for name in _FACTS}})
    plain = {"data_size": record.data.get("train_images"), "cell": record.cell}
    return result_config(record.config) | {"study.name": record.study} | plain | facts


def end_summary(record: RunRecord) -> dict[str, Any]:
    """What a W&B summary holds of an ended run: its metrics under their own names, and which those are.

    Test numbers of a candidate (`study.tune`) stand where only `from_wandb` finds them.
    """
    outcome = {name: value for name in _OUTCOME if (value := getattr(record, name)) is not None}
    if record.status != "finished":
        outcome.pop("finished", None)
    shown = open_metrics(record.metrics, record.config)
    if kept := {name: value for name, value in record.metrics.items() if name not in shown}:
        content = json.dumps({"metrics": kept, "answers": outcome.pop("answers", {})})
        outcome[_WITHHELD] = base64.b64encode(content.encode()).decode()
    return {**shown, **outcome, "metrics": sorted(shown), "status": record.status}


def from_wandb(config: Mapping[str, Any], summary: Mapping[str, Any], state: str) -> RunRecord:
    """The record of a run from its W&B config, summary and state; its curves stay in the history there.

    A run without these facts (its program failed before training) is a failed one with the sweep's values.

    Raises: ValueError for a value that no record has there.
    """
    mappings_first = sorted(config, key=lambda key: not isinstance(config[key], Mapping))
    flat = flatten({key: config[key] for key in mappings_first if key not in _PLAIN})
    settings = _nested(flat)
    facts = settings.pop("record", {})
    known = {"cell": "", "fingerprint": "", "format": 1} | {name: facts[name] for name in _FACTS if name in facts}
    named = {"study": str(flat.get("study.name", "")), "seed": flat.get("seed_everything") or 0, "config": settings}
    return record_of(known | _ended(summary, state) | named)


def _ended(summary: Mapping[str, Any], state: str) -> dict[str, Any]:
    """Status and outcome. A finished run is one that said so: a server also calls an interrupted program finished."""
    outcome = {name: summary[name] for name in _OUTCOME if summary.get(name) is not None}
    outcome["metrics"] = {name: float(summary[name]) for name in summary.get("metrics") or () if name in summary}
    if kept := summary.get(_WITHHELD):
        opened = _opened(kept)
        outcome |= opened | {"metrics": outcome["metrics"] | opened["metrics"]}
    if "finished" in outcome:
        return {**outcome, "status": "finished", "reason": None}
    if summary.get("status") in ("stopped", "failed"):
        return {**outcome, "status": summary["status"]}
    if state in ("running", "pending"):
        return {**outcome, "status": "running"}
    return {"reason": f"W&B has it as {state}", **outcome, "status": "failed"}


def _opened(word: Any) -> dict[str, Any]:
    """What stands under `withheld`. Raises: ValueError for what this program has not written."""
    try:
        content = json.loads(base64.b64decode(word, validate=True))
        return {"metrics": dict(content["metrics"]), "answers": dict(content["answers"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its withheld test numbers are damaged") from error


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        level = nested
        for word in path:
            if not isinstance(level.get(word), dict):
                level[word] = {}
            level = level[word]
        level[last] = value
    return nested


def unreachable(url: str) -> str | None:
    """Why nobody listens at `url`, asked before a client spends its time limit; None where a proxy stands between."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return None
    why = None
    for attempt in range(ATTEMPTS):
        time.sleep(1.0 if attempt else 0.0)
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            return None
        except OSError as error:
            why = f"{url} cannot be reached ({error.strerror or error})"
    return why
