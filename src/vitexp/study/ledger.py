"""The ledger of a campaign: how much of its error each candidate may spend, so that all of them together err in 5 %.

A campaign tries one candidate after another and keeps what is better. Candidate j is judged at a level of its own, and
the levels add up to `stats.ALPHA`: an equal share where their number is fixed ahead, else a series without an end,
ALPHA j^-1.6 / zeta(1.6). Alpha spending: D. Foster, R. Stine, 2008; that series: J. Tian, A. Ramdas, Online control of
the familywise error rate, 2021. (j^-2 would leave candidate 200 a sixth of it.) Each look at a candidate takes half of
what its level has left, so that seeds may be added as often as one likes. No more than the sum of all levels is the
chance of any false verdict, however the tests depend on each other (Bonferroni), so the series goes on when a candidate
becomes the next base.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from scipy import special

from vitexp import stats
from vitexp.record import checked, write_atomically

SCHEMA = "vitexp.ledger/1"
WAIT_SECONDS = 60.0
_SERIES = 1.6


@dataclass
class Look:
    """One judgement of a candidate: a digest of the numbers that it was about, their seeds, and what it said."""

    data: str
    seeds: int
    verdict: str


@dataclass
class Tried:
    """One candidate of a campaign, beside its base, and how often it was looked at."""

    base: str
    candidate: str
    looks: list[Look] = field(default_factory=list)


@dataclass(frozen=True)
class Turn:
    """The place of a look in its campaign, from 1 on, and the level at which it is judged."""

    place: int
    look: int
    level: float

    @property
    def next_level(self) -> float:
        """The level of the next look at this candidate."""
        return self.level / 2


@dataclass
class Ledger:
    """A campaign in memory; `candidates` is how many it will try, where that was fixed ahead."""

    candidates: int | None = None
    tried: list[Tried] = field(default_factory=list)

    def turn(self, base: str, candidate: str, data: str) -> Turn:
        """The level for a look at a candidate; for numbers that were judged before, the level that they had.

        Raises: ValueError for one candidate more than the campaign was planned for.
        """
        pairs = [(one.base, one.candidate) for one in self.tried]
        place = pairs.index((base, candidate)) if (base, candidate) in pairs else len(pairs)
        if self.candidates is not None and place >= self.candidates:
            raise ValueError(
                f"the ledger was planned for {self.candidates} candidates, and all were tried; another campaign, with "
                "an error rate of its own, begins with another --ledger file"
            )
        seen = [look.data for look in self.tried[place].looks] if place < len(pairs) else []
        look = seen.index(data) if data in seen else len(seen)
        return Turn(place + 1, look + 1, self._level(place + 1) / 2 ** (look + 1))

    def note(self, base: str, candidate: str, turn: Turn, look: Look) -> bool:
        """Enters what a turn said; whether that is new."""
        if turn.place > len(self.tried):
            self.tried.append(Tried(base, candidate))
        looks = self.tried[turn.place - 1].looks
        looks += [look] if turn.look > len(looks) else []
        return looks[-1] is look

    def _level(self, place: int) -> float:
        """The share of the error that all looks at a candidate have together."""
        share = place**-_SERIES / float(special.zeta(_SERIES)) if self.candidates is None else 1 / self.candidates
        return stats.ALPHA * share


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else reads or writes the ledger meanwhile. Raises: ValueError after `WAIT_SECONDS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=WAIT_SECONDS)
    except Timeout as error:
        raise ValueError(f"another process has held {path} for {WAIT_SECONDS:.0f} seconds; wait or stop it") from error
    with held:
        yield


def read_ledger(path: Path, candidates: int | None = None) -> Ledger:
    """The ledger in a file, or a new one planned for `candidates` candidates.

    Raises: ValueError for a file that is no ledger, and for one that was begun for another number of candidates.
    """
    if not path.exists():
        return Ledger(candidates)
    try:
        ledger = _ledger(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no ledger of `vitexp compare` ({error}); give the file of the campaign, or a new one"
        ) from error
    if candidates not in (None, ledger.candidates):
        planned = f"{ledger.candidates} candidates" if ledger.candidates else "an open series, without --candidates"
        raise ValueError(
            f"{path} was begun for {planned}, and --candidates is {candidates}; its error rate rests on it"
        )
    return ledger


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Writes it, whole or not at all."""
    write_atomically(path, json.dumps({"schema": SCHEMA, **asdict(ledger)}, indent=1) + "\n")


def _ledger(stored: Any) -> Ledger:
    given = checked(stored, dict[str, Any], "the file")
    if given.get("schema") != SCHEMA:
        raise ValueError(f"schema is {given.get('schema')!r} and not {SCHEMA!r}")
    tried = [
        Tried(**_fields(Tried, one) | {"looks": [Look(**_fields(Look, look)) for look in one["looks"]]})
        for one in checked(given["tried"], list[dict[str, Any]], "tried")
    ]
    planned = checked(given["candidates"], int | None, "candidates")
    if planned is not None and planned < max(1, len(tried)):
        raise ValueError(f"candidates is {planned}, and {len(tried)} were tried")
    return Ledger(planned, tried)


def _fields(kind: type[Look | Tried], stored: Any) -> dict[str, Any]:
    """The plain fields of a part. Raises: ValueError or KeyError where one is absent or of another type."""
    plain = {name: hint for name, hint in kind.__annotations__.items() if hint in (str, int)}
    return {name: checked(stored[name], hint, name) for name, hint in plain.items()}
