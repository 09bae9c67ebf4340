"""The laboratory of the study tests, for those of the reports."""

import importlib.util
from pathlib import Path

_PLACE = Path(__file__).parents[1] / "study" / "conftest.py"
_spec = importlib.util.spec_from_file_location("study_laboratory", _PLACE)
laboratory = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(laboratory)

lab, filled = laboratory.lab, laboratory.filled
