"""The ledger of a campaign: how its error is shared out, and that its file keeps it."""

import json
import math

import pytest

from vitexp.study.ledger import Ledger, Look, read_ledger, write_ledger


def levels_of(ledger, places, looks=1):
    """The level of each look at so many new candidates."""
    found = []
    for place in range(places):
        for look in range(looks):
            turn = ledger.turn("base", f"candidate {place}", f"{place} {look}")
            ledger.note("base", f"candidate {place}", turn, Look(f"{place} {look}", 5, "undecided"))
            found.append(turn.level)
    return found


def test_candidates_that_were_planned_share_the_error_evenly_and_no_more_are_judged():
    ledger = Ledger(candidates=200)
    assert set(levels_of(ledger, 200)) == {0.05 / 200 / 2}
    with pytest.raises(ValueError, match="planned for 200 candidates, and all were tried"):
        ledger.turn("base", "one more", "data")
    assert ledger.turn("base", "candidate 7", "more seeds").level == 0.05 / 200 / 4


def test_an_open_series_never_spends_more_than_all():
    first = levels_of(Ledger(), 3000)
    zeta = sum(j**-1.6 for j in range(1, 2_000_000)) + 2_000_000**-0.6 / 0.6  # the rest of the sum by its integral
    assert first[:3] == pytest.approx([0.025 * j**-1.6 / zeta for j in (1, 2, 3)], rel=1e-6)
    assert first[199] / 0.025 > 5 * 6 / (math.pi * 200) ** 2  # what a series of squares would leave
    every = levels_of(Ledger(), 300, looks=12)
    assert 0.04 < sum(every) < 0.05


def test_looks_at_one_candidate_share_its_level_and_the_same_numbers_are_no_new_look():
    ledger = Ledger(candidates=2)
    said = []
    for data in ("5 seeds", "10 seeds", "5 seeds", "15 seeds", "10 seeds"):
        turn = ledger.turn("base", "a", data)
        said.append((turn.look, turn.level))
        ledger.note("base", "a", turn, Look(data, 5, "undecided"))
    assert said == [(1, 0.0125), (2, 0.00625), (1, 0.0125), (3, 0.003125), (2, 0.00625)]
    assert turn.next_level == 0.003125
    assert (len(ledger.tried), len(ledger.tried[0].looks)) == (1, 3)


def test_another_base_does_not_begin_the_series_again():
    ledger = Ledger()
    (first,) = levels_of(ledger, 1)
    assert ledger.turn("candidate 0", "next", "data").level < first


def test_a_file_keeps_a_campaign(tmp_path):
    path, ledger = tmp_path / "campaign.json", Ledger(candidates=3)
    levels_of(ledger, 2, looks=2)
    write_ledger(path, ledger)
    assert read_ledger(path) == read_ledger(path, 3) == ledger
    assert read_ledger(tmp_path / "none.json", 4) == Ledger(4)


@pytest.mark.parametrize(("planned", "given"), [(3, 4), (None, 4)])
def test_the_number_of_candidates_stays(tmp_path, planned, given):
    write_ledger(tmp_path / "l.json", Ledger(planned))
    with pytest.raises(ValueError, match=rf"was begun for .*, and --candidates is {given}"):
        read_ledger(tmp_path / "l.json", given)


LOOK = {"data": "x", "seeds": 5, "verdict": "better"}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"schema": "vitexp.ledger/2", "candidates": None, "tried": []}),
        json.dumps({"schema": "vitexp.ledger/1", "candidates": 0, "tried": []}),
        json.dumps({"schema": "vitexp.ledger/1", "candidates": None}),
        json.dumps({"schema": "vitexp.ledger/1", "candidates": None, "tried": [{"base": "a", "candidate": "b"}]}),
        json.dumps(
            {
                "schema": "vitexp.ledger/1",
                "candidates": None,
                "tried": [{"base": "a", "candidate": "b", "looks": [LOOK | {"seeds": "5"}]}],
            }
        ),
        json.dumps(
            {
                "schema": "vitexp.ledger/1",
                "candidates": 1,
                "tried": [{"base": "a", "candidate": c, "looks": [LOOK]} for c in "bc"],
            }
        ),
    ],
)
def test_what_is_no_ledger_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "l.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="no ledger of `vitexp compare`"):
        read_ledger(path)
    assert path.read_text() == content
