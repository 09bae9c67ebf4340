"""What the server remembers: runs, sweeps and agents, and which cell an agent is given next."""

import base64
import itertools
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from wandb_server.graphql import QueryError

from vitexp.study import space

ENTITY = "lab"
RETRY_SECONDS = 4.0
"""Two heartbeats of an agent that are closer than this are one, sent again because its answer was lost."""
ALIVE = ("pending", "running")


def opaque(*words: str) -> str:
    """An id as the server hands them out: nobody is to read anything from it."""
    return base64.b64encode(":".join(words).encode()).decode()


@dataclass
class Run:
    """One W&B run, with every line that was streamed to it."""

    entity: str
    project: str
    name: str
    sweep: str | None = None
    state: str = "running"
    claimed: bool = True
    """Whether a client has said that it runs; the run of a sweep exists before."""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=lambda: {"wandb-history.jsonl": [], "wandb-events.jsonl": []})
    files: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    exitcode: int | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    issued: float = 0.0
    alive_at: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        """Its storage id."""
        return opaque("Run", "v1", self.name, self.project, self.entity)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows."""
        return [json.loads(line) for line in self.lines["wandb-history.jsonl"] if line]

    def values(self) -> dict[str, Any]:
        """The config as people see it."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}

    def stream(self, body: dict[str, Any]) -> None:
        """Takes what a client streams; chunks name their offset, so that one sent twice is harmless."""
        for name, chunk in (body.get("files") or {}).items():
            if name == "wandb-summary.json":
                self.summary = json.loads(chunk["content"][-1])
            else:
                lines, offset = self.lines.setdefault(name, []), chunk.get("offset", 0)
                lines[offset : offset + len(chunk["content"])] = chunk["content"]
        self.alive_at = time.time()
        self.state, self.exitcode = "running", None
        if body.get("complete"):
            self.exitcode = body.get("exitcode", 0)
            self.state = "failed" if self.exitcode else "finished"


@dataclass
class Sweep:
    """A search, as the text that the client sent, and the cells that are still to be handed out."""

    project: str
    name: str
    text: str
    state: str = "PENDING"
    todo: Iterator[dict[str, Any]] = field(default_factory=lambda: iter(()))

    @property
    def id(self) -> str:
        """Its storage id."""
        return opaque("Sweep", "v1", self.name, self.project, ENTITY)


@dataclass
class Agent:
    """A client that asks for cells."""

    sweep: Sweep
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    runs: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its storage id."""
        return opaque("Agent", self.name)


class State:
    """Everything, in memory: a server that is killed and comes back has it still."""

    def __init__(self, crash_seconds: float = 300.0) -> None:
        self.crash_seconds = crash_seconds
        self.runs: dict[tuple[str, str], Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Agent] = {}
        self.projects: list[str] = []
        self.artifacts: list[Any] = []

    def run(self, project: str, name: str) -> Run:
        """The run of that id.

        Raises: QueryError when there is none.
        """
        if (project, name) not in self.runs:
            raise QueryError(f"run {ENTITY}/{project}/{name} not found", 404)
        return self.runs[project, name]

    def state_of(self, run: Run) -> str:
        """Its state; one that has said nothing for long has crashed."""
        silent = time.time() - max(run.alive_at, run.issued) > self.crash_seconds
        return "crashed" if run.state == "running" and silent else run.state

    def runs_of(self, sweep: Sweep) -> list[Run]:
        """The runs of a sweep in the order in which they were handed out."""
        return [run for run in self.runs.values() if run.sweep == sweep.name]

    def add_project(self, name: str | None) -> str:
        """The project of that name, made if it is new."""
        name = name or "uncategorized"
        if name not in self.projects:
            self.projects.append(name)
        return name

    def add_sweep(self, text: str, project: str | None) -> Sweep:
        """A new grid search.

        Raises: QueryError when it is not a grid of ours.
        """
        config = yaml.safe_load(text)
        try:
            cells = space.grid(space.read_parameters(config["parameters"]))
        except (ValueError, KeyError, TypeError) as error:
            raise QueryError(f"Invalid sweep config: {error}") from error
        name = secrets.token_hex(4)
        sweep = Sweep(self.add_project(project or config.get("project")), name, text)
        sweep.todo = itertools.islice(cells, config.get("run_cap"))
        self.sweeps[name] = sweep
        return sweep

    def commands(self, agent: Agent, alive: list[str]) -> list[dict[str, Any]]:
        """What an agent is told which says that the runs in `alive` are still up."""
        again = [self._ended(run) for run in self._runs(agent) if run.name not in alive]
        if alive:
            return []
        run = next(filter(None, again), None) or self._next(agent)
        if run is None:
            agent.sweep.state = "FINISHED"
            return [{"type": "exit"}]
        run.issued, agent.sweep.state = time.time(), "RUNNING"
        return [{"type": "run", "run_id": run.name, "program": "vitexp", "args": run.asked}]

    def _runs(self, agent: Agent) -> list[Run]:
        return [self.runs[agent.sweep.project, name] for name in agent.runs]

    def _ended(self, run: Run) -> Run | None:
        """Closes a run whose program ended without a word, unless the agent cannot have heard of it yet."""
        if run.claimed or run.state != "pending":
            return None
        if time.time() - run.issued < RETRY_SECONDS:
            return run
        run.state = "failed"
        return None

    def _next(self, agent: Agent) -> Run | None:
        cell = next(agent.sweep.todo, None)
        if cell is None:
            return None
        asked = {key: {"value": value} for key, value in cell.items()}
        name, sweep = secrets.token_hex(4), agent.sweep
        run = Run(ENTITY, sweep.project, name, sweep.name, "pending", claimed=False, config=dict(asked), asked=asked)
        self.runs[sweep.project, name] = run
        agent.runs.append(name)
        return run
