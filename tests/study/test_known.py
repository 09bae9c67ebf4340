from pathlib import Path

import pytest

from vitexp.report.known_text import compared
from vitexp.study.known import expected_of, files, find, listed, obtained
from vitexp.study.spec import read_study
from vitexp.study.table import make_table

EXPECTED = {
    "metric": "test_acc", "source": "a paper", "differs": "in nothing",
    "arms": [{"model.pool": "cls", "value": 0.90}, {"model.pool": "gap", "value": 0.80}],
}  # fmt: skip


def made(lab, **changes):
    fixed = {"study.name": "s", "study.baseline": {"model.pool": "cls"}, "study.expected": {**EXPECTED, **changes}}
    return lab.study(fixed, {"model.pool": ["cls", "gap"], "seed_everything": [0, 1, 2]})


def level(cell):
    return {"test_acc": 0.9 + 0.01 * (cell.seed - 1)}


def test_a_published_value_agrees_where_our_interval_holds_it(lab):
    study = made(lab)
    lab.fill(study, level)
    cls, gap = obtained(make_table(study, lab.root))
    # Student's interval by hand: 0.9 +- 4.303 * 0.01 / sqrt(3) = 0.875 to 0.925
    assert (cls.interval.low, cls.interval.high) == pytest.approx((0.875159, 0.924841), abs=1e-5)
    assert (cls.verdict, gap.verdict) == ("agrees", "above")


def test_what_is_said_of_a_published_value(lab, capsys):
    from rich.console import Console

    study = made(lab)
    lab.fill(study, level)
    Console(width=150).print(
        compared(make_table(study, lab.root), obtained(make_table(study, lab.root)), str(lab.root))
    )
    said = capsys.readouterr().out
    assert "agrees: the interval holds it" in said
    assert "DISAGREES: ours is higher" in said
    assert "Expected: a paper." in said
    assert "Our protocol differs: in nothing." in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": 3}, "study.expected needs metric, source, differs and arms"),
        ({"arms": [{"model.pool": "cls"}]}, "study.expected needs metric, source, differs and arms"),
        ({"arms": [{"model.pool": "map", "value": 0.9}]}, "which is 0 arms"),
    ],
)
def test_a_wrong_expectation_is_refused(lab, changes, why):
    study = made(lab, **changes)
    lab.fill(study, level)
    with pytest.raises(ValueError, match=why):
        obtained(make_table(study, lab.root))


def test_every_known_result_names_arms_of_its_study(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert len(files()) > 4
    for short, path in files().items():
        study = read_study(path)
        expected, given = expected_of(study), [cell.overrides for cell in study.cells()]
        assert expected.metric in study.config.metrics
        for factors, value in expected.arms:
            assert 0 < value < 1
            assert any(all(cell.get(key) == value for key, value in factors.items()) for cell in given), (
                short,
                factors,
            )
        assert find(short).name == f"known_{short}"


def test_known_results_are_listed_with_source_and_cost():
    rows = {name: rest for name, *rest in listed()}
    assert rows["digits"][0] == "73.2 to 90.31 (2 arms) %"
    assert all(source and cost for _, source, cost in rows.values())


def test_a_folder_without_the_experiments_is_told_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"digits needs experiments/pos_ablation.yaml in this folder; `vitexp init`"):
        find("digits")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(
        ValueError,
        match="'digit' is no known result; give one of better_plain_vit, cifar10_laptop, cifar10_positions, dig",
    ):
        find("digit")
