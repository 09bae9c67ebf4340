"""Artifacts: what a run leaves on the server as files that are found by its name."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from wandb_server.graphql import QueryError

Fields = dict[str, Any]
_MADE = "2026-01-01T00:00:00Z"


@dataclass
class Artifact:
    """One version of one artifact, with its files and their manifest as they were sent."""

    number: int
    facts: Fields
    committed: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its storage id."""
        return base64.b64encode(f"Artifact:{self.number}".encode()).decode()

    @property
    def name(self) -> str:
        """The name of its collection."""
        return str(self.facts["artifactCollectionName"])

    @property
    def contents(self) -> Fields:
        """The files by name, as the manifest has them."""
        manifest: Fields = json.loads(self.files["manifest.json"])
        return dict(manifest["contents"])

    def content(self, digest: str) -> bytes | None:
        """The file with this digest, in hexadecimal digits; None where there is none."""
        names = [n for n, one in self.contents.items() if base64.b64decode(one["digest"]).hex() == digest]
        return self.files[f"data/{names[0]}"] if names else None


class Artifacts:
    """The part of the schema that makes artifacts."""

    _state: Any
    _url: str

    def createArtifact(self, input: Fields) -> Fields:
        """A new version, to be filled."""
        artifact = Artifact(len(self._state.artifacts), input)
        self._state.artifacts.append(artifact)
        return {"artifact": self._artifact(artifact)}

    def createArtifactManifest(self, input: Fields) -> Fields:
        """Where the list of files is to be sent."""
        artifact = self._made(input["artifactID"])
        url = f"{self._place(artifact)}/manifest.json"
        file = {"id": artifact.id, "uploadUrl": url, "uploadHeaders": []}
        return {"artifactManifest": {"id": artifact.id, "file": file}}

    def updateArtifactManifest(self, input: Fields) -> Fields:
        """The same for its last state."""
        return self.createArtifactManifest({"artifactID": input["artifactManifestID"]})

    def createArtifactFiles(self, input: Fields) -> Fields:
        """Where the files are to be sent."""
        nodes = []
        for wanted in input["artifactFiles"]:
            artifact = self._made(wanted["artifactID"])
            place = f"data/{wanted['name']}"
            nodes.append(
                {
                    "name": wanted["name"],
                    "storagePath": place,
                    "uploadUrl": f"{self._place(artifact)}/{place}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": self._artifact(artifact),
                }
            )
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def commitArtifact(self, input: Fields) -> Fields:
        """All files have arrived."""
        artifact = self._made(input["artifactID"])
        artifact.committed = True
        return {"artifact": self._artifact(artifact)}

    def artifact(self, id: str) -> Fields:
        """One that is known by its id, with the place of its list of files."""
        artifact = self._made(id)
        return self._artifact(artifact) | {
            "currentManifest": {"file": {"directUrl": f"{self._place(artifact)}/manifest.json"}}
        }

    def _membership(self, project: Fields, name: str) -> Fields | None:
        """The newest version of an artifact, asked for as NAME:latest."""
        found = [one for one in self._state.artifacts if one.committed and f"{one.name}:latest" == name]
        if not found:
            return None
        artifact, number = found[-1], len(found) - 1
        collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
        facts = self._artifact(artifact) | {
            "artifactSequence": collection,
            "versionIndex": number,
            "artifactType": {"name": artifact.facts["artifactTypeName"]},
            **dict.fromkeys(("description", "metadata", "historyStep", "commitHash", "updatedAt")),
            **{"ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "createdAt": _MADE},
            **{"size": sum(map(len, artifact.files.values())), "fileCount": len(artifact.contents)},
        }
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": artifact.id,
            "versionIndex": number,
            "createdAt": _MADE,
            "aliases": [{"__typename": "ArtifactAlias", "id": artifact.id, "alias": "latest"}],
            "artifactCollection": collection,
            "artifact": facts,
        }

    def _made(self, identity: str) -> Artifact:
        found = [one for one in self._state.artifacts if one.id == identity]
        if not found:
            raise QueryError("artifact not found", 404)
        return found[0]

    def _place(self, artifact: Artifact) -> str:
        return f"{self._url}/storage/artifact/{artifact.number}"

    def _artifact(self, artifact: Artifact) -> Fields:
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "state": "COMMITTED" if artifact.committed else "PENDING",
            "versionIndex": 0,
            "digest": artifact.facts["digest"],
            "artifactSequence": {"id": artifact.id, "latestArtifact": {"id": artifact.id, "versionIndex": 0}},
        }
