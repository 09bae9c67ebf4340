import pytest
import yaml

from vitexp import metrics
from vitexp.study.resolve import ResolvedCell, check_metrics, measured_by
from vitexp.study.spec import read_study

COMMAND = ["vitexp", "fit", "--config", "${args_json_file}"]
CLASSIFY = {"model.objective": "classify", "run.test": True, "run.shots": [1, 5]}


@pytest.fixture
def cells(tmp_path):
    def make(config=None, images=None, settings=None, **top):
        parameters = {"seed_everything": {"values": [0]}, "study.name": {"value": "s"}}
        parameters |= {f"study.{name}": {"value": value} for name, value in (settings or {}).items()}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"method": "grid", "command": COMMAND, "parameters": parameters} | top))
        study = read_study(path)
        config = CLASSIFY | (config or {})
        planned = [
            ResolvedCell(
                **vars(c), argv=[], fingerprint="", name="", run_directory="", config=config, images=images or {}
            )
            for c in study.cells()
        ]
        return study, planned

    return make


@pytest.mark.parametrize(
    ("config", "images", "expected"),
    [
        ({}, {"val": 10, "test": 10}, "val_acc val_loss test_acc test_loss fewshot_1 fewshot_5"),
        ({"run.test": False}, {}, "val_acc val_loss fewshot_1 fewshot_5"),
        ({"run.shots": []}, {"val": 0, "test": 10}, "test_acc test_loss"),
        ({}, {"val": 10, "test": 0}, "val_acc val_loss"),
        ({"model.objective": "masked_pixels", "run.shots": []}, {}, "val_loss test_loss"),
        ({"model.objective": "masked_mean", "run.shots": [5]}, {"test": 0}, "val_colour_acc val_loss"),
        (
            {"trainer.limit_val_batches": 2, "trainer.limit_test_batches": 1.0, "run.shots": []},
            {},
            "limited_val_acc limited_val_loss test_acc test_loss",
        ),
    ],
)
def test_a_cell_measures_what_its_config_says(cells, config, images, expected):
    _, (cell,) = cells(config, images)
    added = tuple(f"_{row.name}" for row in metrics.of_logits())  # by eval/metrics.py, whatever it holds
    assert [name for name in measured_by(cell) if not name.endswith(added)] == expected.split()


@pytest.mark.parametrize(
    ("config", "settings", "name"),
    [
        ({}, {"metrics": ["nope"]}, "study.metrics names nope"),
        ({}, {"metrics": ["val_acc", "fewshot_10"]}, "study.metrics names fewshot_10"),
        ({"run.test": False}, {}, "study.metrics names test_acc"),
        ({"trainer.limit_val_batches": 0.5}, {"tune": ["seed_everything"]}, "study.select names val_acc"),
    ],
)
def test_a_metric_that_will_not_be_measured_is_refused_beforehand(cells, config, settings, name):
    with pytest.raises(
        ValueError, match=rf"{name}, which cell 'the only cell' will not measure; it measures .*val_acc"
    ):
        check_metrics(*cells(config, settings=settings))


def test_metrics_that_are_measured_are_accepted(cells):
    check_metrics(*cells(settings={"metrics": ["test_acc", "fewshot_5", "val_loss"]}))
