"""Classes are matched by their names: what a checkpoint calls them, and what a data set calls them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitexp.data.module import ShardData
from vitexp.train.answers import class_places, listed
from vitexp.train.config import plain
from vitexp.train.module import Classifier


def matched(module: Classifier, data: ShardData, path: str | Path) -> tuple[Classifier, str]:
    """A module with the classes of the checkpoint, which answers for the labels of the data; and a line about them.

    Raises: ValueError when the data have a class that the network does not know, or nobody can tell.
    """
    kept = _kept(path)
    if module.masked is not None or "model" not in kept:
        return module, ""
    count, names = int(kept["model"]["classes"]), kept.get("classes")
    if names is None:
        if count != data.classes:
            raise ValueError(
                f"{path} keeps no class names, and its network has {count} classes where {data.name} has "
                f"{data.classes}; measure it on a set with the classes it was trained on"
            )
        return module, f"{path} keeps no class names: classes are matched by number, which nobody can check"
    places = class_places(names, data.class_names, str(data.name), str(path))
    if count != module.config.classes:
        module = Classifier(**(plain(module.config) | {"classes": count}))
    module.class_names = tuple(names)
    module.places = torch.tensor(places)
    found = set(places)
    absent = [name for place, name in enumerate(names) if place not in found]
    order = ", in another order" if places != sorted(places) else ""
    lacks = f"; {data.name} has no {listed(absent)}" if absent else ""
    return module, f"classes are matched by name: {len(places)} of {len(names)}{order}{lacks}"


def _kept(path: str | Path) -> Mapping[str, Any]:
    """What a checkpoint says of its network; nothing where it cannot be read, which loading it reports."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["vitexp"]
    except Exception:  # whatever a hostile or damaged file may raise
        return {}
    return kept if isinstance(kept, dict) else {}
