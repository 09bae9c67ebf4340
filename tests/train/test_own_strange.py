"""Parts as strangers write them: what a file does while it is imported, options of any plain type, odd names."""

import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from vitexp import axes, own
from vitexp.eval.flops import forward_macs
from vitexp.nn.vit import ViTConfig, build

HEAD = """
from collections.abc import Sequence
from typing import Literal, Optional, Union
import torch
from vitexp.nn.position import Position

class Mine(Position):
    def __init__(self, layout, at{options}):
        super().__init__(layout, at)
        self.table = torch.nn.Parameter(torch.randn(layout.tokens, layout.width))
        self.register_buffer("calls", torch.zeros(()))
        self.given = {{name: value for name, value in locals().items() if name not in ("self", "__class__")}}
    def add(self, tokens, layer):
        {add}
"""
ADD = "return tokens + self.table if layer == 0 else tokens"


@pytest.fixture(autouse=True)
def _new_process(tmp_path, monkeypatch):
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in ("strange", "ünï"):
        sys.modules.pop(name, None)
    own.load.cache_clear()
    own._LOADED.clear()
    axes._LABELS.clear()


def written(before="", options="", add=ADD, file="strange.py"):
    Path(file).write_text(before + HEAD.format(options=options, add=add))


def network(**options):
    given = {"arch": "micro/4", "image_size": 8, "classes": 3, "pos_embed": "strange:Mine"} | options
    return build(ViTConfig(**given))


def test_what_a_file_does_to_the_process_while_it_is_imported_is_undone(tmp_path, capsys):
    written(
        "import os, random, warnings, numpy, torch\nos.chdir('/')\nrandom.seed(7)\nnumpy.random.seed(7)\n"
        "torch.manual_seed(7)\ntorch.set_default_device('meta')\ntorch.set_grad_enabled(False)\n"
        "warnings.simplefilter('error')\nprint('loud')\n"
    )
    filters = list(warnings.filters)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(()), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with torch.device("meta"):  # as a plan does
        network()
    assert (torch.rand(()), np.random.rand(), random.random()) == expected
    assert Path(os.getcwd()) == tmp_path
    assert warnings.filters == filters
    assert torch.is_grad_enabled()
    assert capsys.readouterr().out == ""


def test_tensors_of_a_file_have_values_also_where_a_plan_imports_it():
    written("import torch\nORDER = torch.arange(5)\n", add="return tokens + self.table[ORDER]")
    with torch.device("meta"):
        network()
    assert sys.modules["strange"].ORDER.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("where", ["file", "constructor"])
def test_a_part_that_changes_the_type_of_all_tensors_is_refused(where):
    line = "torch.set_default_dtype(torch.float64)"
    written(f"import torch\n{line}\n" if where == "file" else "", add=ADD)
    if where == "constructor":
        Path("strange.py").write_text(Path("strange.py").read_text().replace("self.table =", f"{line}; self.table ="))
    with pytest.raises(ValueError, match=r"strange:Mine makes torch.float64 the type of all tensors of this process"):
        network()
    assert torch.get_default_dtype() == torch.float32


TYPES = {
    "x: Optional[float] = None": (None, 2, 2.0, "abc", "is 'abc'; allowed are values of Optional"),
    "x: str = 'a'": ("a", "3", "3", 3, "is 3, as YAML reads it, and must be text: put it in quotes, \"'3'\" for 3"),
    "x: 'str | int' = 'a'": ("a", 3, 3, 1.5, r"is 1.5; allowed are values of str \| int"),
    "x: float = None": (None, 2, 2.0, "abc", "is 'abc', which is not a number"),
    "x: 'int | str' = 3": (3, "a", "a", 1.5, r"is 1.5; allowed are values of int \| str"),
    "x: Union[int, None] = None": (None, 4, 4, 1.5, "is 1.5; allowed are values of Optional"),
    "x: Literal['a', 'b'] = 'a'": ("a", "b", "b", "c", "is 'c'; allowed are a, b"),
    "x: Optional[Literal['a', 'b']] = None": (None, "b", "b", "c", "is 'c'; allowed are values of Optional"),
    "x: list[int] = [1, 2]": ([1, 2], [3], [3], ["a"], "is 'a', which is not a whole number"),
    "x: Sequence[float] = (1.0,)": ([1.0], [3, 4], [3.0, 4.0], "ab", "is 'ab'"),
    "x: tuple[int, ...] = (1, 2, 3)": ([1, 2, 3], [4], [4], [0.5], "is 0.5, which is not a whole number"),
    "x: tuple[int, float] = (1, 2.0)": ([1, 2.0], [3, 4], [3, 4.0], [1, 2, 3], "has 3 values; give 2"),
    "x=(1, 2)": ([1, 2], [3, 4, 5], [3, 4, 5], 3, "is 3, which is not a"),
    "x: bool = True": (True, False, False, 3, "is 3, which is not true or false"),
    "*, x: dict = {}": ({}, {"a": 1}, {"a": 1}, 3, "is 3, which is not a mapping"),
}


@pytest.mark.parametrize("declared", TYPES)
def test_options_of_any_plain_type_are_taken_and_others_refused(declared):
    default, given, taken, wrong, said = TYPES[declared]
    written(options=f", {declared}")
    assert network().position.given["x"] == default
    found = network(options={"pos_embed": {"x": given}}).position.given["x"]
    assert found == taken
    assert type(found) is type(taken)
    with pytest.raises(ValueError, match=f"model.options.pos_embed.x {said}"):
        network(options={"pos_embed": {"x": wrong}})


BROKEN = {
    "return tokens[:, 1:] if layer == 2 else tokens": r"gives shape \(2, 4, 64\) and must give shape \(2, 5, 64\)",
    "return tokens[:1] + self.table": r"gives shape \(1, 5, 64\) and must give shape \(2, 5, 64\)",
    "return tokens.double()": "gives torch.float64 for torch.float32; give the type that it is given",
    "tokens += self.table; return tokens": "changes the tensor that it is given; write into a new one",
    "return tokens + self.table * tokens.log()": "gives NaN for ordinary values; mend that method",
}


@pytest.mark.parametrize("add", BROKEN)
def test_a_method_that_does_not_give_what_it_must_is_refused_by_its_name(add):
    written(add=add)
    with pytest.raises(ValueError, match=rf"pos_embed strange:Mine: add\(\) {BROKEN[add]}"):
        network()


def test_being_tried_leaves_no_trace_in_a_buffer():
    written(add="self.calls += 1; return tokens + self.table")
    assert network().position.calls == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Mine = 5", "has Mine of type int, which is no class; name a class of that file"),
        ("def Mine(layout, at): pass", "has Mine of type function, which is no class"),
        ("import sys\nsys.exit(0)", r"cannot be imported: SystemExit: 0 \(.*strange.py:2\); mend that file"),
        (HEAD.format(options=", x: 'Nowhere' = 1", add=ADD), "fails: NameError: name 'Nowhere' is not defined; mend"),
        (HEAD.format(options="", add=ADD).replace("super()", "raise SystemExit(0)  #"), "fails: SystemExit: 0 "),
        (HEAD.format(options="", add=ADD).replace("self, layout, at", "self"), "4 were given; mend|3 were given; mend"),
    ],
)
def test_what_is_wrong_is_said_of_the_users_file_alone(source, said):
    Path("strange.py").write_text(source)
    with pytest.raises(ValueError, match=said) as found:
        network()
    assert str(own.ROOT) not in str(found.value)


def test_a_file_that_an_installed_module_hides_is_to_be_renamed():
    written(file="colorsys.py")
    with pytest.raises(ValueError, match=r"has no class Mine; it hides colorsys.py of this folder, so rename yours"):
        network(pos_embed="colorsys:Mine")


def test_names_may_have_letters_of_any_language():
    written(file="ünï.py")
    Path("ünï.py").write_text(Path("ünï.py").read_text().replace("Mine", "Größe"))
    assert type(network(pos_embed="ünï:Größe").position).__name__ == "Größe"


@pytest.mark.parametrize("macs", ["cls, layout, pairs", "self", "cls, layout, pairs, *, as_computed=False"])
def test_a_wrong_formula_of_what_it_multiplies_is_said_of_the_part(macs):
    written()
    decorator = "" if macs == "self" else "@classmethod\n    "
    with Path("strange.py").open("a") as file:
        file.write(f"    {decorator}def macs({macs}):\n        return 'many'\n")
    said = "counting what pos_embed strange:Mine multiplies fails: TypeError: .*; mend that file"
    with pytest.raises(ValueError, match=said) as found:
        forward_macs(ViTConfig(arch="micro/4", image_size=8, classes=3, pos_embed="strange:Mine"))
    assert str(found.value).count("mend that file") == 1


def test_what_a_constructor_draws_from_numpy_and_python_follows_the_seed_too():
    drawn = "self.table.data *= numpy.random.rand() + random.random(); self.register_buffer"
    written("import random\nimport numpy\n")
    Path("strange.py").write_text(Path("strange.py").read_text().replace("self.register_buffer", drawn))
    tables = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        tables.append(network().position.table)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
