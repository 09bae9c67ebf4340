"""One arm against another from real records: the verdict, the level that it has, and what is refused."""

import itertools
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from vitexp import stats
from vitexp.bits import write_answers
from vitexp.study.compare import compare

IMAGES = 400
NOISE = np.array([0.010, -0.004, 0.003, -0.012, 0.005, 0.001, -0.006, 0.009, -0.002, -0.004])
COMMON = np.array([0.02, -0.01, 0.005, -0.02, 0.01, -0.005, 0.015, -0.01, 0.0, -0.005])
SOURCES = {"source": "0123456789abcdef"}


class Arms:
    """Arms of a study by the value of one option, each in the folder that a runner would give it."""

    def __init__(self, lab):
        self.lab = lab
        self.names = itertools.count()

    def write(self, level, seeds=range(10), dropout=0.0, spread=1.0, study="s", **changes):
        """The folder of an arm with this mean accuracy."""
        swept = {"model.dropout": [dropout], "seed_everything": list(seeds)}
        written = self.lab.study({"study.name": study}, swept)
        sign = 1 if dropout else -1
        for cell in written.cells():
            value = level + COMMON[cell.seed % 10] + sign * spread * NOISE[cell.seed % 10]
            given = {"code": SOURCES, "learning": {"train_loss_start": 2.3, "train_loss_end": 0.5}} | changes
            record = self.lab.run(cell, {"test_acc": float(value)}, study=study, **given)
        return str(self.lab.root / study / record.cell)


@pytest.fixture
def arms(lab):
    return Arms(lab)


@pytest.mark.parametrize(
    ("level", "margin", "verdict", "status_also"),
    [
        (0.93, None, "better", False),
        (0.87, None, "worse", False),
        (0.902, None, "undecided", False),
        (0.902, 0.03, "equivalent", True),
        (0.902, 0.01, "undecided", False),
        (0.916, 0.04, "better", True),
        (0.884, 0.04, "worse", True),
    ],
)
def test_the_verdict_is_what_the_interval_says(arms, level, margin, verdict, status_also):
    found = compare(arms.write(0.9), arms.write(level, dropout=0.1), margin=margin)
    assert (found.verdict, found.is_equivalent) == (verdict, status_also)
    samples = [
        stats.Sample(values=dict(enumerate(map(float, mean + COMMON + sign * NOISE))), pool="one")
        for mean, sign in ((0.9, -1), (level, 1))
    ]
    asked = stats.Asked(contrast=stats.Contrast(weights={samples[1]: 1.0, samples[0]: -1.0}), margin=margin)
    expected = stats.judge({"": asked}, images=True)[""]
    assert (found.judgement.low, found.judgement.high) == pytest.approx((expected.low, expected.high))
    assert found.level == stats.ALPHA


def test_a_study_with_one_arm_and_a_record_name_the_same_side(arms):
    base, candidate = arms.write(0.9, study="one"), arms.write(0.93, dropout=0.1, study="two")
    expected = compare(base, candidate).judgement
    folder = arms.lab.root
    assert compare(str(folder / "one"), str(folder / "two")).judgement == expected


def answered(arms, right_of, seeds=range(10)):
    """Two arms whose runs answered single images."""
    folders = []
    for dropout in (0.0, 0.1):
        swept = {"model.dropout": [dropout], "seed_everything": list(seeds)}
        for cell in arms.lab.study({"study.name": "s"}, swept).cells():
            bits = right_of(dropout, cell.seed)
            record = arms.lab.run(cell, {"test_acc": float(bits.mean())}, study="s", code=SOURCES)
            folder = arms.lab.root / "s" / record.cell / f"seed-{cell.seed}"
            entry = write_answers(folder, "test_acc", bits.tolist(), "the images")
            arms.lab.run(cell, record.metrics, study="s", code=SOURCES, answers=entry)
        folders.append(str(folder.parent))
    return folders


def test_images_count_unless_these_alone_are_asked_about(arms):
    hard = np.linspace(-1.5, 2, IMAGES)
    draws = np.random.default_rng(5).normal(size=(2, 10, IMAGES))
    base, candidate = answered(arms, lambda dropout, seed: hard + draws[int(dropout > 0), seed] > -0.05 * (dropout > 0))
    such, these = compare(base, candidate), compare(base, candidate, such=False)
    assert (such.judgement.images, these.judgement.images) == (IMAGES, 0)
    assert such.judgement.high - such.judgement.low > these.judgement.high - these.judgement.low


def test_where_the_images_are_too_few_more_seeds_are_not_asked_for(arms):
    draw = np.random.default_rng(6)
    image = draw.normal(size=IMAGES)  # every run of an arm agrees, and the arms disagree about many images
    other = draw.normal(size=IMAGES)

    def right_of(dropout, seed):
        noise = np.random.default_rng([int(dropout > 0), seed]).normal(0, 0.1, IMAGES)
        return (other if dropout else image) + noise > -1

    base, candidate = answered(arms, right_of)
    found = compare(base, candidate, margin=0.01)
    assert found.verdict == "undecided"
    assert found.need[1] > 10 * IMAGES
    assert found.cautions == ()


def test_an_undecided_comparison_says_which_seeds_to_run(arms):
    found = compare(arms.write(0.9, range(8)), arms.write(0.902, range(5), dropout=0.1), margin=0.005)
    base, candidate = found.to_run
    assert found.effect == 0.005
    assert candidate[:4] == [5, 6, 7, 8]
    assert base[0] == 8
    assert 8 + len(base) == 5 + len(candidate) == found.need[0]


def test_two_seeds_decide_nothing_and_the_third_is_named(arms):
    found = compare(arms.write(0.5, [0, 1, 2]), arms.write(0.9, [0, 1], dropout=0.1))
    assert (found.verdict, found.to_run) == ("undecided", ([], [2]))


def test_an_arm_of_which_some_runs_did_not_train_is_undecided(arms):
    base, candidate = arms.write(0.9), arms.write(0.95, dropout=0.1)
    lost = {"train_loss_start": 2.3, "train_loss_end": 2.31}
    arms.write(0.1, [3], dropout=0.1, learning=lost)
    found = compare(base, candidate)
    assert (found.verdict, found.why, found.to_run) == (
        "undecided",
        f"unstable: 1 of 10 runs did not train of {candidate}",
        ([], []),
    )
    assert any("did not train" in text and "dropout=0.1" in text for text in found.cautions)


def test_runs_that_are_not_finished_are_named(arms):
    base, candidate = arms.write(0.9), arms.write(0.93, dropout=0.1)
    arms.write(0.9, [4], dropout=0.1, status="failed", reason="out of memory")
    caution, _ = compare(base, candidate).cautions
    assert "seed 4 failed (out of memory)" in caution


def test_other_source_code_is_a_candidate(arms):
    base, candidate = arms.write(0.9), arms.write(0.93, study="t", code={"source": "f" * 16})
    found = compare(base, candidate)
    assert found.verdict == "better"
    assert dict(found.candidate.arm.factors) == {"code.source": "ffffffff"}
    assert not any("source" in text for text in found.cautions)


def test_what_cannot_be_compared_is_refused_in_one_sentence(arms, tmp_path):
    base, candidate = arms.write(0.9), arms.write(0.93, dropout=0.1)

    def refused(match, one=base, other=candidate, **options):
        with pytest.raises(ValueError, match=match) as error:
            compare(one, other, **options)
        assert "\n" not in str(error.value)

    refused("is no folder; give that of an arm", other=str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    refused("holds no run", other=str(tmp_path / "empty"))
    refused("are one configuration, run by one source", other=base)
    refused(
        "is one run, and arms are compared over seeds; give the folder of its arm, ",
        other=str(next(Path(base).iterdir())),
    )
    refused("holds 2 arms", other=str(arms.lab.root / "s"))
    refused("holds fewshot_5; they hold test_acc", metric="fewshot_5")
    refused("--metric is test_images, which is a number of images", metric="test_images")
    refused("--margin is 0; give a difference in accuracy between 0 and 1", margin=0.0)
    refused("--margin is 5; give a difference in accuracy between 0 and 1", margin=5.0)
    refused("--margin is nan", margin=float("nan"))
    refused("--margin is inf; give a difference above 0 in the unit", margin=float("inf"), metric="test_loss")
    refused("give --ledger FILE too", candidates=3)
    few = {"one": arms.write(0.9, [0], study="a"), "other": arms.write(0.9, [11, 12], dropout=0.2, study="b")}
    refused("no seed in common.*run seed 0 of .*/b/.* and seeds 11, 12 of .*/a/", **few)
    refused("one seed in common.*run seeds 1, 2 of", other=arms.write(0.9, [0], dropout=0.2, study="c"))
    refused("holds no finished run", other=arms.write(0.9, dropout=0.2, study="d", status="failed"))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"name": "digits", "classes": 10, "test_images": 99}, "test_images 360 and 99"),
        ({"name": "cifar10", "classes": 10, "test_images": 360}, "name digits and cifar10"),
    ],
)
def test_another_test_set_is_refused(arms, data, match):
    base = arms.write(0.9)
    with pytest.raises(ValueError, match=f"not measured on the same images .*{match}"):
        compare(base, arms.write(0.93, dropout=0.1, data=data))


def test_the_order_of_the_images_says_whether_they_are_the_same(arms):
    held = {order: {"name": "digits", "order_fingerprints": {"test": order * 16}} for order in "ab"}
    base = arms.write(0.9, data=held["a"])
    renamed = arms.write(0.93, dropout=0.1, data=held["a"] | {"name": "the same elsewhere"})
    assert compare(base, renamed).verdict == "better"
    with pytest.raises(ValueError, match="test images aaaaaaaaaaaa and bbbbbbbbbbbb"):
        compare(base, arms.write(0.93, dropout=0.2, data=held["b"]))


def test_a_seed_that_was_run_twice_is_refused(arms):
    base, candidate = arms.write(0.9), arms.write(0.93, dropout=0.1)
    cell = arms.lab.study({"study.name": "s"}, {"model.dropout": [0.1], "seed_everything": [3]}).cells()[0]
    again = arms.lab.root / "s" / candidate.rpartition("/")[2] / "again"
    arms.lab.run(cell, {"test_acc": 0.99}, study="s", folder=again, code=SOURCES)
    with pytest.raises(ValueError, match="several finished runs of seed 3; leave the one there that counts"):
        compare(base, candidate)


def test_runs_of_one_side_by_several_sources_are_refused(arms):
    base, candidate = arms.write(0.9), arms.write(0.93, dropout=0.1)
    arms.write(0.93, [9], dropout=0.1, code={"source": "f" * 16})
    with pytest.raises(ValueError, match=r"made by different source code, 01234567 .*, ffffffff .such as seed 9"):
        compare(base, candidate)


def test_a_ledger_gives_each_candidate_and_each_look_its_level(arms, tmp_path):
    base, ledger = arms.write(0.9), tmp_path / "folder" / "campaign.json"
    first = arms.write(0.901, range(5), dropout=0.1)
    options = {"ledger": ledger, "candidates": 4}
    levels = [compare(base, first, **options).level]
    levels.append(compare(base, first, **options).level)  # the same question again
    arms.write(0.901, dropout=0.1)  # more seeds
    levels.append(compare(base, first, ledger=ledger).level)
    levels.append(compare(base, first, such=False, ledger=ledger).level)  # another question
    levels.append(compare(base, arms.write(0.93, dropout=0.2), **options).level)
    levels.append(compare(first, arms.write(0.93, dropout=0.3), **options).level)  # against a new base
    share = stats.ALPHA / 4
    assert levels == [share / 2, share / 2, share / 4, share / 8, share / 2, share / 2]
    stored = json.loads(ledger.read_text())
    assert [len(one["looks"]) for one in stored["tried"]] == [3, 1, 1]
    assert [one["looks"][0]["verdict"] for one in stored["tried"]] == ["undecided", "better", "better"]


def test_the_level_of_the_ledger_is_that_of_the_interval(arms, tmp_path):
    base, candidate = arms.write(0.9), arms.write(0.93, dropout=0.1)
    alone = compare(base, candidate).judgement
    found = compare(base, candidate, ledger=tmp_path / "l.json", candidates=200).judgement
    assert found.high - found.low > 2 * (alone.high - alone.low)
    assert found.p == pytest.approx(alone.p)


def test_where_nothing_is_judged_nothing_is_spent(arms, tmp_path):
    base, ledger = arms.write(0.9), tmp_path / "l.json"
    assert compare(base, arms.write(0.9, [0, 1], dropout=0.1), ledger=ledger).verdict == "undecided"
    assert not ledger.exists()


def _compare(arguments):
    base, candidate, ledger = arguments
    return compare(base, candidate, ledger=ledger).turn.place


def test_processes_that_compare_at_once_each_get_a_place(arms, tmp_path):
    base, ledger = arms.write(0.9), tmp_path / "l.json"
    candidates = [arms.write(0.93, dropout=0.1 + 0.01 * index) for index in range(8)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        places = pool.map(_compare, [(base, one, ledger) for one in candidates], chunksize=1)
    assert sorted(places) == list(range(1, 9))
    assert len(json.loads(ledger.read_text())["tried"]) == 8
