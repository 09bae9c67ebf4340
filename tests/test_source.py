"""The digest of the source: which files it covers, and that it tells one byte and one name from another."""

import importlib
import sys

import pytest

from vitexp import source


def test_a_number_from_another_file_brings_that_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "number_aside.py").write_text("SCALE = 2.0\n")
    (tmp_path / "uses_number.py").write_text("from number_aside import SCALE\n")
    module = importlib.import_module("uses_number")
    assert set(source.with_imported([module])) == {"uses_number", "number_aside"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name in ("record.py", "learn/session.py", "study/resolve.py", "report/html.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(source, "ROOT", tmp_path)
    return tmp_path


def digest():
    return source.source_hash.__wrapped__()


def test_every_file_that_training_reaches_counts_and_no_other(package):
    before = digest()
    for unread in ("study/resolve.py", "report/html.py", "learn/session.pyc"):
        (package / unread).write_bytes(b"other")
    assert digest() == before == digest()
    seen = {before}
    (package / "learn/session.py").write_text("# another line\n")
    seen.add(digest())
    (package / "learn/session.py").rename(package / "learn/renamed.py")
    seen.add(digest())
    assert len(seen) == 3


def test_the_hash_and_the_versions_are_there_without_torch(package):
    assert "torch" not in vars(source)
    assert {"python", "torch", "lightning", "numpy", "vitexp"} <= set(source.package_versions())
    assert source.package_versions()["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_library_that_is_not_installed_is_absent(monkeypatch):
    monkeypatch.setattr(source, "LIBRARIES", ("numpy", "no-such-library-anywhere"))
    assert set(source.package_versions()) == {"python", "numpy"}
