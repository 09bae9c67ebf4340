"""The queries and mutations that the client sends in the flows of this suite, answered from the server's state."""

import json
import time
from typing import Any

from wandb_server.artifacts import Artifacts
from wandb_server.graphql import QueryError
from wandb_server.state import ENTITY, Agent, Run, State, Sweep, opaque

Fields = dict[str, Any]


def connection(nodes: list[Fields], first: int | None = None, after: str | None = None) -> Fields:
    """A page of a list; cursors count."""
    start = int(after) + 1 if after else 0
    page = nodes[start : start + (first or len(nodes))]
    edges = [{"node": node, "cursor": str(start + index)} for index, node in enumerate(page)]
    last = edges[-1]["cursor"] if edges else None
    more = {"__typename": "PageInfo", "endCursor": last, "hasNextPage": start + len(page) < len(nodes)}
    return {"edges": edges, "totalCount": len(nodes), "pageInfo": more}


def stamp(seconds: float) -> str:
    """A time as the client reads it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Schema(Artifacts):
    """The root of both kinds of operation: attribute names are GraphQL's."""

    def __init__(self, state: State, url: str) -> None:
        self._state, self._url = state, url

    # What there is

    def viewer(self) -> Fields:
        """Who asks."""
        return _USER

    def serverInfo(self) -> Fields:
        """What this server can do."""
        return {
            "__typename": "ServerInfo",
            "cliVersionInfo": {"min_cli_version": "0.8.0", "max_cli_version": "99.0.0"},
            "latestLocalVersionInfo": None,
            "features": [{"name": name, "isEnabled": True} for name in ("CLIENT_IDS", "FILESTREAM_GZIP")],
        }

    def entity(self, name: str | None = None) -> Fields:
        """The only account."""
        return {
            "__typename": "Entity",
            "id": opaque("Entity", ENTITY),
            "name": ENTITY,
            "isTeam": False,
            "user": _USER,
            "organization": {"coreWeaveOrganizationId": None},
        }

    def project(self, name: str, entityName: str | None = None) -> Fields | None:
        """A project, if it is there."""
        return self._project(name) if name in self._state.projects else None

    model = project

    def upsertModel(self, input: Fields) -> Fields:
        """Makes a project."""
        project = self._project(self._state.add_project(input.get("name")))
        return {"project": project, "model": project, "inserted": True}

    def _project(self, name: str) -> Fields:
        state = self._state
        return {
            "__typename": "Project",
            "id": opaque("Project", name),
            "internalId": opaque("ProjectNumber", name),
            "name": name,
            "entityName": ENTITY,
            "entity": self.entity,
            "readOnly": False,
            "sweep": lambda sweepName: self._sweep(state.sweeps.get(sweepName)),
            "artifact": lambda name: None,  # asked for before it is made
            "artifactCollectionMembership": lambda name, project=name: self._membership(self._project(project), name),
            "run": lambda name, project=name: self._run(state.runs.get((project, name))),
            "bucket": lambda name, missingOk=False, project=name: self._bucket(project, name, missingOk),
            "runs": lambda filters=None, project=name, **page: self._runs(project, filters, page),
            "runCount": lambda filters=None, project=name: len(self._found(project, filters)),
        }

    def _bucket(self, project: str, name: str, missing_ok: bool) -> Fields | None:
        return self._run(self._state.runs.get((project, name)) if missing_ok else self._state.run(project, name))

    # Runs

    def upsertBucket(self, input: Fields) -> Fields:
        """Makes a run or changes one; the client calls this at its start and whenever a fact changes."""
        run = next((one for one in self._state.runs.values() if one.id == input.get("id")), None)
        inserted = False
        if run is None:
            if not input.get("name"):
                raise QueryError("run not found", 404)
            key = self._state.add_project(input.get("modelName")), input["name"]
            inserted = key not in self._state.runs
            run = self._state.runs.setdefault(key, Run(ENTITY, *key))
        run.sweep = input.get("sweep") or run.sweep
        run.facts |= {key: value for key, value in input.items() if value is not None}
        if input.get("config") is not None:
            run.config = json.loads(input["config"])
            run.claimed = run.claimed or "_wandb" in run.config
        if input.get("summaryMetrics") is not None:
            run.summary = json.loads(input["summaryMetrics"])
        if run.claimed and run.state == "pending":
            run.state = "running"
        run.state = input.get("state") or run.state
        run.alive_at = time.time()
        return {"bucket": self._run(run), "inserted": inserted}

    def createRunFiles(self, input: Fields) -> Fields:
        """Where to send files to."""
        run = self._state.run(input["projectName"], input["runName"])
        place = f"{self._url}/storage/{run.project}/{run.name}/"
        files = [{"__typename": "File", "name": name, "uploadUrl": place + name} for name in input["files"]]
        return {"runID": run.id, "uploadHeaders": [], "files": files}

    def _found(self, project: str, filters: str | None) -> list[Run]:
        asked = json.loads(filters) if filters else {}
        wanted = {key: value for part in asked.get("$and", [asked]) for key, value in part.items()}
        if wanted.keys() - {"sweep"}:
            raise QueryError(f"runs are found here by their sweep alone, asked: {filters}")
        held = [run for (place, _), run in self._state.runs.items() if place == project]
        return [run for run in held if run.sweep == wanted.get("sweep", run.sweep)]

    def _runs(self, project: str, filters: str | None, page: Fields) -> Fields:
        found = [self._run(run) for run in self._found(project, filters)]
        return connection(found, page.get("first"), page.get("after"))

    def _run(self, run: Run | None) -> Fields | None:
        if run is None:
            return None
        rows = run.lines["wandb-history.jsonl"]
        return {
            "__typename": "Run",
            "id": run.id,
            "name": run.name,
            "displayName": run.facts.get("displayName", run.name),
            "group": run.facts.get("groupName"),
            "jobType": None,
            "tags": [],
            "notes": None,
            "description": None,
            "commit": None,
            "host": run.facts.get("host"),
            "readOnly": False,
            "user": _USER,
            "projectId": str(self._state.projects.index(run.project)),
            "project": lambda: self._project(run.project),
            "sweepName": run.sweep,
            "state": self._state.state_of(run),
            "exitcode": run.exitcode,
            "stopped": False,
            "createdAt": stamp(run.issued or run.alive_at),
            "heartbeatAt": stamp(run.alive_at),
            "config": json.dumps(run.config),
            "wandbConfig": lambda keys: self._internal(run, keys),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(rows),
            "eventsLineCount": len(run.lines["wandb-events.jsonl"]),
            "logLineCount": len(run.lines.get("output.log", [])),
            "historyTail": json.dumps(rows[-1:]),
            "eventsTail": json.dumps(run.lines["wandb-events.jsonl"][-1:]),
            "historyKeys": None,
            "history": lambda minStep=0, maxStep=None, samples=None: self._history(run, minStep, maxStep),
            "files": lambda **page: connection([{"__typename": "File", "name": name} for name in run.files]),
        }

    @staticmethod
    def _internal(run: Run, keys: list[str]) -> str | None:
        held = run.config.get("_wandb", {}).get("value") or {}
        return json.dumps({key: held[key] for key in keys if key in held}) if run.claimed else None

    @staticmethod
    def _history(run: Run, first: int | None, end: int | None) -> list[str]:
        rows = [row for row in run.history if (first or 0) <= row["_step"] and (end is None or row["_step"] < end)]
        return [json.dumps(row) for row in rows]

    # Sweeps and agents

    def upsertSweep(self, input: Fields) -> Fields:
        """Makes a sweep or changes its state."""
        sweep = next((one for one in self._state.sweeps.values() if one.id == input.get("id")), None)
        if sweep is None:
            if not input.get("config"):
                raise QueryError("sweep not found", 404)
            sweep = self._state.add_sweep(input["config"], input.get("projectName"))
        sweep.state = input.get("state") or sweep.state
        return {"sweep": self._sweep(sweep), "configValidationWarnings": []}

    def createAgent(self, input: Fields) -> Fields:
        """An agent signs on."""
        if input["sweep"] not in self._state.sweeps:
            raise QueryError(f"could not find sweep {input['sweep']}", 404)
        agent = Agent(self._state.sweeps[input["sweep"]])
        self._state.agents[agent.id] = agent
        return {"agent": self._agent(agent)}

    def agentHeartbeat(self, input: Fields) -> Fields:
        """An agent says what runs, and hears what to do."""
        agent = self._state.agents.get(input["id"])
        if agent is None:
            raise QueryError("agent not found", 404)
        alive = [name for name, up in json.loads(input.get("runState") or "{}").items() if up]
        return {"agent": self._agent(agent), "commands": json.dumps(self._state.commands(agent, alive))}

    def _agent(self, agent: Agent) -> Fields:
        return {"__typename": "Agent", "id": agent.id, "name": agent.name}

    def _sweep(self, sweep: Sweep | None) -> Fields | None:
        if sweep is None:
            return None
        runs = self._state.runs_of(sweep)
        return {
            "__typename": "Sweep",
            "id": sweep.id,
            "name": sweep.name,
            "displayName": None,
            "method": "grid",
            "state": sweep.state,
            "description": None,
            "config": sweep.text,
            "createdAt": stamp(time.time()),
            "heartbeatAt": stamp(time.time()),
            "updatedAt": stamp(time.time()),
            "controller": None,
            "scheduler": None,
            "bestLoss": None,
            "earlyStopJobRunning": False,
            "runCount": len(runs),
            "runCountExpected": None,
            "priorRuns": lambda **page: connection([]),
            "project": lambda: self._project(sweep.project),
            "runs": lambda **page: connection([self._run(run) for run in runs], page.get("first"), page.get("after")),
            "agents": lambda **page: connection([]),
            "agent": lambda agentName: self._agent(self._state.agents[agentName]),
        }


_USER: Fields = {
    "__typename": "User",
    "id": opaque("User", ENTITY),
    "name": ENTITY,
    "username": ENTITY,
    "entity": ENTITY,
    "email": f"{ENTITY}@localhost",
    "admin": False,
    "flags": json.dumps({"code_saving_enabled": False}),
    "deletedAt": None,
    "teams": lambda: connection([]),
    "apiKeys": lambda: connection([]),
    "organizations": [],
}
