"""What a newcomer reads and what other tools read of the project: links lead somewhere, facts stand in one place."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from vitexp import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]  # LOG.md tells of what was
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def anchors(page):
    """The headings of a page as links name them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_pictures_of_the_documentation_are_small_and_hold_their_text_as_text():
    pictures = sorted((ROOT / "docs").glob("*.svg"))
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 100_000 or b"<text" not in path.read_bytes()] == []


def test_the_readme_and_the_rules_for_contributors_stay_short():
    readme = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in readme if len(line) > 120] == []
    assert len(readme) <= 120
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 45
    assert len((ROOT / "docs" / "glossary.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_documentation_exists(page):
    (verbs,) = (action.choices for action in cli.build_parser()._subparsers._group_actions)
    used = set(re.findall(r"(?:^ {4}|`|&& )vitexp ([a-z][a-z-]+)", page.read_text(), re.M))
    assert used <= set(verbs)
    for name in re.findall(r"\b(?:experiments|recipes|sweeps)/[a-z_0-9]+\.(?:yaml|sbatch|py)", page.read_text()):
        assert (ROOT / name).exists() or "/mine." in name, name


def test_every_make_target_of_the_documentation_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    used = {name for page in PAGES for name in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", page.read_text(), re.M)}
    assert {"reproduce-table", "test"} <= used <= targets


def test_pre_commit_runs_what_make_lint_runs():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make lint", "system", False)


def test_continuous_integration_runs_the_one_script_on_every_python_that_is_promised():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    promised = re.findall(r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_the_citation_names_this_version_and_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
