"""A position of the user's own by import path: from a file to a record, and every way in which it can be wrong."""

import sys
from pathlib import Path

import pytest
import torch

from vitexp import cli
from vitexp.eval.flops import forward_macs
from vitexp.nn.vit import ViTConfig, build
from vitexp.record import fingerprint, read_record, read_records
from vitexp.tools.network import open_network
from vitexp.train.module import Classifier

EXAMPLE = (Path(__file__).parents[2] / "examples" / "my_ideas.py").read_text()
TINY = ["--model.arch=micro/4", "--data.train_images=40", "--data.batch_size=20", "--trainer.max_epochs=1"]
TINY += ["--run.shots=[]", "--run.wandb=off", "--trainer.enable_progress_bar=false"]
MINE = "--model.pos_embed=ideas:Alibi2D"
HEAD = "import torch\nfrom vitexp.nn.position import Position\nopen('imported', 'w').close()\n"


def config(**options):
    return ViTConfig(**{"arch": "micro/4", "image_size": 8, "classes": 3, "pos_embed": "ideas:Alibi2D"} | options)


def test_a_position_in_a_file_is_trained_recorded_and_shown_without_the_file(door, ideas, capsys, forget):
    slope = "--model.options.pos_embed.slope=2"
    assert door("fit", *TINY, MINE, slope, "--study.name=mine") == 0
    assert door("fit", *TINY, "--study.name=mine") == 0
    records = {record.config["model"]["pos_embed"]: record for record in read_records("runs")[0]}
    mine, plain = records["ideas:Alibi2D"], records["1d"]
    part = mine.parts["model.pos_embed"]
    assert part["label"] == "2-D ALiBi"
    assert part["file"] == "ideas.py"
    assert part["properties"] == {"permutation_invariant": False, "adds_parameters": False}
    assert mine.config["model"]["options"] == {"pos_embed": {"slope": 2.0}}
    assert mine.config["model"]["sources"] == {"pos_embed": part["source"]}
    assert part["parameters"] == 0
    assert plain.parameters - mine.parameters == 5 * 64  # the table of the class token and 2 x 2 patches
    assert mine.train_flops == plain.train_flops  # a buffer that is added
    assert plain.parts == plain.config["model"]["options"] == {}

    ideas.unlink()
    forget()
    Path("sweep.yaml").write_text(
        "program: vitexp\nmethod: grid\nparameters:\n  study.name: {value: mine}\n"
        "  study.baseline: {value: {model.pos_embed: 1d}}\n"
        "  model.pos_embed: {values: [1d, 'ideas:Alibi2D']}\n  seed_everything: {values: [0]}\n"
        'command: ["${env}", "vitexp", "fit", "--config", "${args_json_file}"]\n'
    )
    capsys.readouterr()
    assert cli.main(["table", "sweep.yaml"]) == 0
    assert "2-D ALiBi" in capsys.readouterr().out
    assert "ideas" not in sys.modules


def test_two_arms_of_a_sweep_one_of_them_own(digits, ideas, capsys):
    lines = [
        f"  {word.removeprefix('--').split('=')[0]}: {{value: {word.split('=')[1]}}}"
        for word in TINY
        if "wandb" not in word
    ]
    own_arm = "{model.pos_embed: 'ideas:Alibi2D', model.options.pos_embed.slope: 0.25}"
    Path("sweep.yaml").write_text(
        "program: vitexp\nmethod: grid\nparameters:\n  study.name: {value: mine}\n" + "\n".join(lines) + "\n"
        "  study.baseline: {value: {model.pos_embed: 1d}}\n"
        f"  data.shards: {{value: {digits}}}\n  arm: {{values: [{{model.pos_embed: 1d}}, {own_arm}]}}\n"
        'command: ["${env}", "vitexp", "fit", "--config", "${args_json_file}"]\n'
    )
    assert cli.main(["sweep", "sweep.yaml", "--workers=1"]) == 0
    first = {record.fingerprint: record for record in read_records("runs")[0]}
    assert sorted(record.status for record in first.values()) == ["finished", "finished"]
    slopes = [record.config["model"]["options"] for record in first.values()]
    assert {"pos_embed": {"slope": 0.25}} in slopes
    capsys.readouterr()
    assert cli.main(["table", "sweep.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "not compared" not in shown, "options go with their part"
    assert "not enough evidence" in shown

    ideas.write_text(EXAMPLE.replace("return -self.penalty", "return -2 * self.penalty"))
    assert cli.main(["sweep", "sweep.yaml", "--workers=1"]) == 0
    second = {record.fingerprint: record for record in read_records("runs")[0]}
    assert len(second) == 3, "the edited part is another run, and the arm of the built-in word is not run again"
    assert first.keys() <= second.keys()


def test_an_edited_file_is_another_run_and_so_is_one_that_it_imports(digits, ideas, forget):
    words = ["fit", f"--data.shards={digits}", *TINY, MINE]

    def planned():
        forget()
        return cli.plan(words)["fingerprint"]

    Path("aside.py").write_text("FACTOR = 1\n")
    ideas.write_text("import aside\n" + EXAMPLE)
    found = [planned(), planned()]
    ideas.write_text("import aside\n" + EXAMPLE + "\n")
    found.append(planned())
    Path("aside.py").write_text("FACTOR = 2\n")
    found.append(planned())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_weights_with_other_options_of_the_part_are_refused(door, ideas, capsys):
    assert door("fit", *TINY, MINE, "--model.options.pos_embed.slope=4", "--run.dir=first") == 0
    init = ["--run.init=first/checkpoints/last.ckpt", "--run.dir=second"]
    assert door("fit", *TINY, MINE, *init) == cli.BAD_INPUT
    assert "holds a network of model.options.pos_embed {'slope': 4.0}, and the run has" in capsys.readouterr().err
    assert door("fit", *TINY, MINE, "--model.options.pos_embed.slope=4", *init) == 0


def test_the_options_that_are_given_and_those_by_default_are_one_run(digits, ideas):
    words = ["fit", f"--data.shards={digits}", *TINY, MINE]
    given = {value: cli.plan([*words, f"--model.options.pos_embed.slope={value}"])["fingerprint"] for value in (0.5, 1)}
    assert cli.plan(words)["fingerprint"] == given[0.5] != given[1]


def test_a_run_without_own_parts_keeps_its_fingerprint():
    before = {"model": {"arch": "micro/4", "pos_embed": "1d"}, "seed_everything": 0}
    after = {"model": before["model"] | {"options": {}, "sources": {}}, "seed_everything": 0}
    assert fingerprint(after) == fingerprint(before)


def test_yaml_and_flags_are_one(digits, ideas):
    Path("mine.yaml").write_text("model: {pos_embed: 'ideas:Alibi2D', options: {pos_embed: {slope: 3}}}\n")
    Path("dotted.yaml").write_text("model.pos_embed: 'ideas:Alibi2D'\nmodel.options.pos_embed.slope: 3.0\n")
    start = ["fit", f"--data.shards={digits}", *TINY]
    ways = [["--config=mine.yaml"], ["--config=dotted.yaml"], [MINE, "--model.options.pos_embed.slope=3"]]
    assert len({cli.plan([*start, *way])["fingerprint"] for way in ways}) == 1


def test_all_other_weights_start_as_those_of_the_baseline(ideas):
    """Also where the part draws its own from torch's generator."""
    drawn = "self.register_parameter('scale', torch.nn.Parameter(torch.randn(3)))\n        self.register_buffer"
    ideas.write_text(EXAMPLE.replace("adds_parameters = False", "").replace("self.register_buffer", drawn))
    torch.manual_seed(3)
    here, again, without = build(config()), build(config()), build(config(pos_embed="none"))
    torch.manual_seed(4)
    other = build(config())
    assert all(torch.equal(value, here.state_dict()[name]) for name, value in without.state_dict().items())
    assert torch.equal(here.position.scale, again.position.scale)
    assert not torch.equal(here.position.scale, other.position.scale)
    assert torch.equal(here.position.penalty, again.position.penalty)


def test_what_a_part_multiplies_is_counted_unless_it_says_so(ideas, forget):
    """By hand: one product of T x D with D x D in each of 4 layers, T = 5 and D = 64."""
    ideas.write_text(
        f"{HEAD}class Alibi2D(Position):\n    def __init__(self, layout, at):\n        super().__init__(layout, at)\n"
        "        self.kernel = torch.nn.Linear(layout.width, layout.width, bias=False)\n"
        "    def add(self, tokens, layer):\n        return tokens + self.kernel(tokens)\n"
    )
    plain = forward_macs(config(pos_embed="1d"))
    assert forward_macs(config()) == plain + 4 * 5 * 64 * 64
    formula = "    @classmethod\n    def macs(cls, layout, pairs, *, as_computed=False):\n        return 7\n"
    ideas.write_text(ideas.read_text() + formula)
    forget()
    assert forward_macs(config()) == plain + 4 * 7


PART = "from vitexp.nn.table import part\n@part('pos_embed', '{}', label='r', about='a')\n"
GOOD = "class Alibi2D(Position):\n    def add(self, tokens, layer):\n        return tokens\n"
WRONG = {
    "1 / 0": "cannot be imported: ZeroDivisionError: division by zero",
    "def Alibi2D(": "cannot be imported: SyntaxError",
    "class Alibi: pass": "has no class Alibi2D; name a class of that file",
    "class Alibi2D: pass": "has no method add or rotate or bias: derive the class from vitexp.nn.position.Position",
    "class Alibi2D(torch.nn.Module): pass": "has no method add or rotate or bias",
    "class Alibi2D(Position): pass": "has no method of its own: write add or rotate or bias",
    GOOD.replace(
        "return tokens", "return tokens[:, 1:]"
    ): r"add\(\) gives shape \(2, 4, 64\) and must give shape \(2, 5",
    GOOD.replace("return tokens", "pass"): r"add\(\) gives a NoneType and must give shape \(2, 5, 64\)",
    GOOD.replace("return tokens", "return tokens @ tokens"): "fails: RuntimeError: .* mend that file",
    f"{GOOD}    label = 'rotary'": "is called 'rotary' like the built-in rope; give its class another name",
    f"{GOOD}    label = '1D'": "is called '1D' like the built-in 1d",
    f"{GOOD}    adds_parameters = 1": "declares adds_parameters 1; it must be True or False",
    PART.format("rope") + GOOD: "registers pos_embed rope",
    PART.format("my") + GOOD: "registers pos_embed my ",
    f"{GOOD}    def __init__(self, layout, at, slope: float):\n        super().__init__(layout, at)": "Alibi2D needs "
    "model.options.pos_embed.slope; give it",
}


@pytest.mark.parametrize("source", WRONG)
def test_a_part_that_cannot_be_is_refused_in_one_sentence_before_training(door, ideas, capsys, source):
    ideas.write_text(HEAD + source + "\n")
    assert door("fit", *TINY, MINE) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("vitexp: ")
    with pytest.raises(AssertionError, match=WRONG[source]):  # as a pattern
        raise AssertionError(said)
    assert not list(Path("runs").rglob("record.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [MINE, "--model.options.pos_embed.slope=abc"],
            "model.options.pos_embed.slope is 'abc', which is not a number",
        ),
        ([MINE, "--model.options.pos_embed.slop=1"], "slop is no option of ideas:Alibi2D, which has only slope"),
        (["--model.options.pos_embed.slope=1"], "model.options.pos_embed has no effect with pos_embed 1d"),
        ([MINE, "--model.options.pool.slope=1"], "model.options.pool has no effect"),
        (["--model.pos_embed=nowhere:Alibi2D"], "there is no nowhere.py in"),
        (
            ["--model.pos_embed=ideas:"],
            "sincos2d, rope, rope_mixed, alibi, relative2d, or MODULE:NAME of your own",
        ),
        ([MINE, "--model.sources.pos_embed=0123456789abcdef"], "ideas:Alibi2D has changed: the hash of ideas.py is"),
    ],
)
def test_options_and_paths_that_cannot_be_are_refused(door, ideas, capsys, words, said):
    assert door("fit", *TINY, *words) == cli.BAD_INPUT
    assert said in capsys.readouterr().err


@pytest.fixture
def trained(door, ideas, forget):
    """The checkpoint of a run with an own position, whose file leaves a trace when it is imported; forgotten."""
    ideas.write_text(HEAD + EXAMPLE)
    assert door("fit", *TINY, MINE, "--run.dir=run") == 0
    Path("imported").unlink()
    forget()
    return Path("run/checkpoints/last.ckpt")


OPENS = {
    "load_from_checkpoint": lambda path, allow: Classifier.load_from_checkpoint(path, allow_import=allow).network,
    "open_network": lambda path, allow: open_network(str(path), allow_import=allow).network,
}


@pytest.mark.parametrize("opens", OPENS)
def test_a_checkpoint_imports_nothing_unless_it_is_allowed(trained, ideas, opens):
    source = read_record("run").parts["model.pos_embed"]["source"]
    with pytest.raises(ValueError, match=rf"needs pos_embed ideas:Alibi2D, the file ideas.py \(source {source}\), and"):
        OPENS[opens](trained, False)
    assert not Path("imported").exists()
    network = OPENS[opens](trained, True)
    assert Path("imported").exists()
    assert type(network.position).__name__ == "Alibi2D"


@pytest.mark.parametrize("opens", OPENS)
def test_a_checkpoint_is_refused_where_its_file_has_changed_or_is_gone(trained, ideas, opens, forget):
    ideas.write_text(HEAD + EXAMPLE + "\n")
    with pytest.raises(ValueError, match=r"ideas:Alibi2D has changed: the hash of ideas.py is \w+ now and was \w+"):
        OPENS[opens](trained, True)
    ideas.unlink()
    forget()
    with pytest.raises(ValueError, match=r"ideas:Alibi2D cannot be imported: there is no ideas.py in"):
        OPENS[opens](trained, True)


def test_commands_take_the_flag_and_formats_of_others_refuse_the_part(trained, capsys):
    assert cli.main(["export", str(trained), "own.safetensors"]) == cli.BAD_INPUT
    assert "give --allow-import if you trust it" in capsys.readouterr().err
    assert cli.main(["export", str(trained), "own.safetensors", "--allow-import"]) == 0
    for form in ("google.npz", "folder"):
        assert cli.main(["export", str(trained), form, "--allow-import"]) == cli.BAD_INPUT
        assert "cannot express pos_embed ideas:Alibi2D" in capsys.readouterr().err
    written = open_network("own.safetensors").network
    assert torch.equal(written.head.weight, open_network(str(trained)).network.head.weight)


def test_a_run_goes_on_and_is_measured_by_the_part_that_it_was_trained_with(door, trained, ideas, capsys, forget):
    assert door("validate", *TINY, MINE, "--run.dir=run") == 0
    forget()
    ideas.write_text(HEAD + EXAMPLE + "\n")
    assert door("validate", *TINY, MINE, f"--ckpt_path={trained}") == cli.BAD_INPUT
    assert "holds another network: here the file of your own pos_embed has changed;" in capsys.readouterr().err
    assert door("fit", *TINY, MINE, "--run.dir=run") == cli.BAD_INPUT
    assert "holds a run of another config" in (said := capsys.readouterr().err)
    assert ": here the file of your own pos_embed has changed); give another --run.dir" in said
    assert door("fit", *TINY, "--run.dir=run") == cli.BAD_INPUT
    assert "model.pos_embed is 1d (there ideas:Alibi2D)" in (said := capsys.readouterr().err)
    assert "has changed" not in said


def test_what_a_server_sends_to_an_agent_imports_nothing_unless_it_is_allowed(door, ideas, monkeypatch, capsys):
    ideas.write_text(HEAD + EXAMPLE)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    Path("args.json").write_text('{"model.pos_embed": "ideas:Alibi2D"}')
    words = ["fit", *TINY, "--config=args.json", "--trainer.fast_dev_run=true"]
    assert door(*words) == cli.BAD_INPUT
    assert "this W&B sweep needs pos_embed ideas:Alibi2D" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert door(*words, "--allow-import") == 0


CALLBACK = "[{class_path: aside.Mine}]"
DOWNLOADED = {
    "a flag": (["--trainer.callbacks", CALLBACK], ""),
    "a flag with =": ([f"--trainer.callbacks={CALLBACK}"], ""),
    "a path alone": (["--trainer.callbacks+=aside.Mine"], ""),
    "the group": (["--trainer={callbacks: " + CALLBACK + "}"], ""),
    "a file": (["--config=args.json"], f"trainer: {{callbacks: {CALLBACK}}}"),
    "a dotted key": (["--config=args.json"], f"trainer.callbacks: {CALLBACK}"),
    "an arm": (["--config", "args.json"], f"arm: {{trainer.callbacks: {CALLBACK}}}"),
    "beside Lightning's": (
        ["--config=args.json"],
        "trainer.callbacks: [lightning.pytorch.callbacks.ModelSummary, aside.Mine]",
    ),
}


@pytest.mark.parametrize("way", DOWNLOADED)
def test_an_agent_imports_no_callback_unless_it_is_allowed(door, ideas, monkeypatch, capsys, way):
    given, text = DOWNLOADED[way]
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.delitem(sys.modules, "aside", raising=False)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    start = "import lightning.pytorch as L\nopen('imported', 'w').close()\n"
    Path("aside.py").write_text(f"{start}class Mine(L.Callback): pass\n")
    Path("args.json").write_text(text or "{}")
    words = ["fit", *TINY, *given, "--trainer.fast_dev_run=true"]
    assert door(*words) == cli.BAD_INPUT
    assert "this W&B sweep gives the trainer aside.Mine, and importing a class" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert door(*words, "--allow-import") == 0
    assert Path("imported").exists()


def test_an_agent_takes_callbacks_of_lightning(door, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    callback = "{class_path: lightning.pytorch.callbacks.ModelSummary, init_args: {max_depth: 1}}"
    assert door("fit", *TINY, f"--trainer.callbacks=[{callback}]", "--trainer.fast_dev_run=true") == 0


def test_a_record_imports_nothing(trained):
    record = read_record("run")
    assert record.parts["model.pos_embed"]["value"] == "ideas:Alibi2D"
    assert not Path("imported").exists()
