"""The public list: complete, documented, typed, and loaded only when it is used."""

import doctest
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import vitexp

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.ipynb"), *ROOT.glob("*.md")])
IMPORT = re.compile(r"^\s*(?:>>> )?(?:from (vitexp[\w.]*) import ([^#\n]+)|import (vitexp[\w.]*))", re.MULTILINE)
BLOCK = """
import sys
class Block:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {blocked}:
            raise AssertionError("imported " + name)
sys.meta_path.insert(0, Block())
"""


def run(code, *blocked):
    command = [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(page):
    """What a page shows as code; of a notebook its code cells."""
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_the_package_alone_imports_nothing():
    heavy = ("torch", "numpy", "scipy", "lightning", "timm", "pandas", "matplotlib", "yaml", "jsonargparse")
    found = run("import vitexp; dir(vitexp); print([n for n in sys.modules if n.startswith('vitexp')])", *heavy)
    assert found == "['vitexp']\n"


def test_records_and_studies_need_no_torch():
    code = "from vitexp import RunRecord, Study, Table, make_table, read_record, read_records, read_study"
    run(code, "torch", "lightning", "timm", "torchvision")


def test_any_name_that_needs_torch_lets_timm_be_imported_after_it():
    run("from vitexp import build; import timm")


def test_completion_shows_the_public_list_and_nothing_else():
    assert dir(vitexp) == vitexp.__all__ == sorted(set(vitexp.__all__))
    assert {"ViT", "Classifier", "ShardData", "read_study", "load_weights"} <= set(vitexp.__all__)


def test_a_name_that_is_not_public_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'Vit'; its public names are .*ViT, ViTConfig"):
        vitexp.Vit  # noqa: B018


@pytest.mark.parametrize("name", vitexp.__all__)
def test_each_public_name_resolves_is_documented_and_typed(name):
    thing = getattr(vitexp, name)
    assert thing.__doc__, f"{name} has no docstring"
    if inspect.isclass(thing):
        assert not thing.__doc__.startswith(f"{thing.__name__}("), f"{name} has only the docstring that dataclass makes"
        thing = thing.__init__
    signature = inspect.signature(thing)
    untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
    assert not untyped, f"{name}: {', '.join(untyped)} have no type"
    assert signature.return_annotation is not signature.empty, f"{name} does not say what it returns"


def test_each_public_module_is_checked_by_the_strictest_rules():
    stub = (ROOT / "src/vitexp/__init__.pyi").read_text()
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    strict = {module for one in overrides if one.get("warn_return_any") for module in one["module"]}
    assert set(re.findall(r"^from (\S+)", stub, re.MULTILINE)) <= strict


def test_type_checkers_take_each_name_for_public():
    """In a stub only `NAME as NAME` is an export."""
    stub = (ROOT / "src/vitexp/__init__.pyi").read_text()
    renamed = [public for name, public in re.findall(r"^from .* import (\w+) as (\w+)", stub, re.M) if name != public]
    assert not renamed
    assert len(re.findall(r"^from .* import", stub, re.MULTILINE)) == len(vitexp.__all__)


def test_the_page_on_python_names_the_whole_list():
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/python.md").read_text()))
    assert set(vitexp.__all__) <= named, f"docs/python.md lacks {', '.join(sorted(set(vitexp.__all__) - named))}"


def used_in_a_notebook(name):
    return any(name in text_of(page) for page in PAGES if page.suffix == ".ipynb")


@pytest.mark.parametrize("name", vitexp.__all__)
def test_each_public_name_has_an_example_that_runs(name, tmp_path, monkeypatch):
    """In its docstring; or in a notebook, where it needs files or a training run."""
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, **{public: getattr(vitexp, public) for public in vitexp.__all__}}
    examples = doctest.DocTestFinder(recurse=False).find(names[name], name, module=False, globs=names)
    assert any(example.examples for example in examples) or used_in_a_notebook(name), f"{name} has no example"
    said = []
    failed = sum(doctest.DocTestRunner().run(example, out=said.append).failed for example in examples)
    assert not failed, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_and_notebooks_import_is_public(page):
    public = {*vitexp.__all__, "torch_ops"}
    for module, names, whole in IMPORT.findall(text_of(page)):
        assert (module or whole) in ("vitexp", "vitexp.torch_ops"), f"{page.name}: {module or whole} is not public"
        unknown = {name.split()[0] for name in names.strip("() ").split(",") if name.strip()} - public
        assert not unknown, f"{page.name} imports {', '.join(unknown)}, which vitexp does not list"
