"""`vitexp selfcheck`: from a config to a printed certificate and an exit status, without data."""

import json
import sys
from pathlib import Path

import pytest

from vitexp import axes, cli, own

SMALL = ["--data.shards=shards/absent", "--data.image_size=8", "--model.arch=micro/2"]
GOOD = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
DEAD = GOOD.replace("return -self.penalty", "return 0 * self.penalty")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    sys.modules.pop("checked_ideas", None)
    own.load.cache_clear()
    own._LOADED.clear()
    axes._LABELS.clear()


def test_a_config_without_data_is_certified_and_leaves_nothing_behind(tmp_path, capsys):
    assert cli.main(["selfcheck", *SMALL, "--model.pos_embed=rope", "--model.pool=gap"]) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == "micro/2, 8 pixels, 1,000 classes: pos_embed rope against 1d, pool gap against cls"
    assert len(lines) == 11
    assert lines[-1] == "  save and resume     holds     saved, loaded and resumed it goes on to the bit"
    assert last == "11 checks: 9 hold, 0 fail, 2 reported"
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_ones_own_that_does_nothing_fails(capsys):
    Path("checked_ideas.py").write_text(DEAD)
    words = ["selfcheck", *SMALL, "--model.pos_embed=checked_ideas:Alibi2D", "--model.options.pos_embed.slope=2"]
    Path("none.yaml").write_text(
        "model: {arch: micro/2, pos_embed: none}\ndata: {shards: shards/absent, image_size: 8}\n"
    )
    assert cli.main([*words, "--baseline=none.yaml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "vitexp.selfcheck/1"
    assert found["holds"] is False
    assert found["changed"] == {"pos_embed": {"here": "checked_ideas:Alibi2D", "baseline": "none"}}
    failed = {one["check"]: one["text"] for one in found["checks"] if one["verdict"] == "FAILS"}
    assert failed.keys() == {"changes the output", "order of patches"}
    assert len(found["checks"]) == 11


def test_options_of_the_same_part_are_compared(capsys):
    Path("checked_ideas.py").write_text(GOOD)
    mine = {"pos_embed": "checked_ideas:Alibi2D"}
    Path("mine.yaml").write_text(
        json.dumps({"model": {"arch": "micro/2", **mine}, "data": {"shards": "shards/absent", "image_size": 8}})
    )
    assert (
        cli.main(["selfcheck", "--config=mine.yaml", "--baseline=mine.yaml", "--model.options.pos_embed.slope=2"]) == 0
    )
    assert "options {'pos_embed': {'slope': 2.0}} against {'pos_embed': {'slope': 0.5}}" in capsys.readouterr().out


def test_a_part_that_prints_leaves_the_document_alone(capsys):
    """In its file, its constructor and its passes."""
    printing = GOOD.replace("return -self.penalty", "print('pass'); return -self.penalty").replace(
        "rows, columns =", "print('built'); rows, columns ="
    )
    Path("checked_ideas.py").write_text(f"print('imported')\n{printing}")
    assert cli.main(["selfcheck", *SMALL, "--model.pos_embed=checked_ideas:Alibi2D", "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["holds"] is True
    assert {"imported", "built", "pass"} <= set(found.err.split())


def test_what_only_trains_is_not_called_the_baseline(capsys):
    Path("checked_ideas.py").write_text(GOOD)
    words = ["--model.optimizer=checked_ideas:SignSgd", "--model.loss=checked_ideas:Focal"]
    assert cli.main(["selfcheck", *SMALL, *words]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "micro/2, 8 pixels, 1,000 classes: the baseline's network, trained with optimizer checked_ideas:SignSgd, "
        "trained with loss checked_ideas:Focal"
    )


def test_a_schedule_that_no_run_could_follow_is_refused(capsys):
    Path("checked_ideas.py").write_text(GOOD.replace("return 0.5 *", "return 1.5 *"))
    assert cli.main(["selfcheck", *SMALL, "--model.schedule=checked_ideas:Cyclic"]) == cli.BAD_INPUT
    said = "schedule checked_ideas:Cyclic gives 3 at step 0 of 1000, and must give a share of model.lr"
    assert said in capsys.readouterr().err


def test_an_augmentation_that_changes_no_image_is_named(capsys):
    words = ["selfcheck", *SMALL, "--data.auto_augment=checked_ideas:Speckle", "--data.augment=flip"]
    Path("checked_ideas.py").write_text(GOOD)
    assert cli.main([*words, "--data.options.auto_augment.share=0.001"]) == 0
    assert "augmentation        holds     auto_augment checked_ideas:Speckle changes images" in capsys.readouterr().out
    assert cli.main([*words, "--data.options.auto_augment.share=0"]) == 1
    said = "augmentation        FAILS     auto_augment checked_ideas:Speckle changed none of 300 images; connect it"
    assert said in capsys.readouterr().out
    Path("checked_ideas.py").write_text(GOOD.replace("np.uint8(128), image)", "np.uint8(128), image)[1:]"))
    sys.modules.pop("checked_ideas")
    own.load.cache_clear()
    assert cli.main(words) == cli.BAD_INPUT
    assert "gives uint8 (7, 8, 3) and must give uint8 (8, 8, 3); mend that class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.pos_embed=nowhere:Mine"], "pos_embed nowhere:Mine cannot be imported: there is no nowhere.py"),
        (["--model.pos_embed=spiral"], "--model.pos_embed is 'spiral'; allowed: none, 1d"),
        (["--baseline=other.yaml"], "--baseline other.yaml has image_size 16, and the config 8; give both configs the"),
        (["--baseline=absent.yaml"], "absent.yaml"),
        (["--data.image_size=null"], "shards/absent"),
        (["--no-such-flag=1"], "--no-such-flag is no flag"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, said, capsys):
    Path("other.yaml").write_text("model: {arch: micro/2}\ndata: {shards: shards/absent, image_size: 16}\n")
    assert cli.main(["selfcheck", *SMALL, *words]) == cli.BAD_INPUT
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found
