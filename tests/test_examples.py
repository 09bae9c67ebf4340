"""The notebooks: small, without outputs, and each runs from its first cell to its last in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
HOLDS = {
    "study": "len(table) == len(points) == 4 and set(table.verdict.dropna()) and len(runs) == 12",
    "trained_network": "maps.shape == (6, 4, 4) and min(by_draw.values()) > 0.3 and not larger.head.weight.any()",
    "vit_features": "features.shape == (2, 192) and len(variants) == 5",
}
"""What must be true after the last cell of each."""
RUNNER = """
import json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1]))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
assert eval(sys.argv[2], names), sys.argv[2]
"""


def cells(notebook, kind="code"):
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def test_each_notebook_says_what_must_hold_at_its_end():
    assert {notebook.stem for notebook in NOTEBOOKS} == set(HOLDS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_text_and_code_without_outputs(notebook):
    content = json.loads(notebook.read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert content["cells"][0]["cell_type"] == "markdown"
    for number, source in enumerate(cells(notebook)):
        compile(source, f"{notebook.name}, code cell {number}", "exec")
    lengths = [len(line) for source in (*cells(notebook), *cells(notebook, "markdown")) for line in source.split("\n")]
    assert max(lengths) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(notebook, tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(notebook), HOLDS[notebook.stem]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
