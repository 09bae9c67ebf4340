"""Which options count in a fingerprint: all but those that the table names."""

from pathlib import Path

import pytest

from vitexp.neutral import NEUTRAL, PARTS
from vitexp.record import fingerprint, result_config

BASE = {"seed_everything": 0, "model": {"lr": 0.1}, "trainer": {"max_epochs": 2}}
STOP = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_acc", "patience": 3}}
AVERAGE = {"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging", "init_args": {"swa_lrs": 0.01}}
RATES = {"class_path": "lightning.pytorch.callbacks.lr_monitor.LearningRateMonitor"}


def of(**trainer):
    return fingerprint({**BASE, "trainer": {**BASE["trainer"], **trainer}})


def test_early_stopping_weight_averaging_and_a_plain_run_are_three_runs():
    assert len({of(), of(callbacks=[STOP]), of(callbacks=[AVERAGE]), of(callbacks=[STOP, AVERAGE])}) == 4
    patient = STOP | {"init_args": {"monitor": "val_acc", "patience": 5}}
    assert of(callbacks=[STOP]) != of(callbacks=[patient])
    assert of(callbacks=[STOP]) == of(callbacks=STOP) == of(callbacks=[STOP, RATES])


@pytest.mark.parametrize(
    "option",
    [
        {"callbacks": [RATES]},
        {"callbacks": None},
        {"profiler": "simple"},
        {"logger": False},
        {"logger": [{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "x"}}]},
        {"strategy": "ddp_find_unused_parameters_true"},
        {"plugins": [{"class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment"}]},
    ],
)
def test_watchers_do_not_count(option):
    assert of(**option) == of()


@pytest.mark.parametrize(
    "option",
    [
        {"strategy": "fsdp"},
        {"strategy": {"class_path": "mine.Strategy", "init_args": {}}},
        {"plugins": [{"class_path": "lightning.pytorch.plugins.MixedPrecision"}]},
        {"profiler": {"class_path": "mine.Profiler"}},
        {"logger": {"class_path": "mine.Logger"}},
        {"callbacks": [{"class_path": "mine.LearningRateMonitor"}]},
        {"callbacks": [{"class_path": "lightning.pytorch.callbacks.AnotherOfALaterRelease"}]},
        {"enable_an_option_of_a_later_release": True},
    ],
)
def test_whatever_is_not_known_to_be_neutral_counts(option):
    assert of(**option) != of()


def test_an_argument_of_a_part_that_is_unset_does_not_count():
    with_more = STOP | {"init_args": STOP["init_args"] | {"an_argument_of_a_later_release": None}}
    assert of(callbacks=[with_more]) == of(callbacks=[STOP])


def test_an_unset_option_of_the_data_is_a_choice_and_stays():
    assert result_config({"data": {"image_size": None}}) == {"data.image_size": None}


def test_the_page_on_records_ends_with_this_table():
    page = (Path(__file__).parents[1] / "docs" / "records.md").read_text().split("an option that does not count")[1]
    rows = [f"| `{key}` | {why} |" for key, why in NEUTRAL.items()]
    rows += [f"| `{key}` {name} | {why} |" for key, parts in PARTS.items() for name, why in parts.items()]
    missing = [row for row in rows if row not in page]
    assert not missing, "docs/records.md lacks:\n" + "\n".join(missing)
    assert page.count("\n| `") == len(rows)
