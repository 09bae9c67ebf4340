"""The laboratory of the study tests, for those of the reports."""

import importlib.util
from pathlib import Path

import pytest

_PLACE = Path(__file__).parents[1] / "study" / "conftest.py"
_spec = importlib.util.spec_from_file_location("study_laboratory", _PLACE)
laboratory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(laboratory)

lab, filled = laboratory.lab, laboratory.filled


@pytest.fixture(scope="session")
def make_lab():
    """A laboratory in a folder of one's own, for studies that several tests read."""
    return laboratory.Lab
