"""Which code makes the numbers: a digest of the package's own source, and the versions of the libraries beneath it.

Both wings read it: training writes it into each record, studies compare it with what made the finished ones.
"""

import ast
import contextlib
import functools
import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent
_CANNOT_TRAIN = ("study", "report", "starter")
"""Folders that plan runs and read records; no number of a run passes through them."""
LIBRARIES = (
    "torch", "lightning", "torchmetrics", "timm", "numpy", "scipy", "scikit-learn", "pillow", "simplejpeg", "vitexp",
)  # fmt: skip
"""Libraries that can move a number: arithmetic, training loop, pretrained networks, decoding, linear probes."""


@functools.cache
def source_hash() -> str:
    """16 hexadecimal digits over names and bytes of every source file that training can reach."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")):
        if name.partition("/")[0] not in _CANNOT_TRAIN:
            content = (ROOT / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def package_versions() -> dict[str, str]:
    """Python and the installed libraries that can move a number; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# Code of the user's own: callbacks, and parts by import path.

_OURS = ("vitexp", "lightning", "torch")
"""Packages whose version, or source, a record holds anyway."""
INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def with_imported(modules: Iterable[ModuleType]) -> dict[str, ModuleType]:
    """Modules by name, and what they import in turn and no one has installed."""
    found = {module.__name__: module for module in modules}
    waiting = list(found.values())
    while waiting:
        last = waiting.pop()
        values = list(vars(last).values())
        names = [one.__name__ if isinstance(one, ModuleType) else getattr(one, "__module__", None) for one in values]
        for name in [*names, *_named_by_imports(last)]:
            module = sys.modules.get(name) if isinstance(name, str) else None
            installed = str(getattr(module, "__file__", None)).startswith(INSTALLED)
            if module and module.__name__ not in found and has_source(module) and not installed:
                found[module.__name__] = module
                waiting.append(module)
    return found


def _named_by_imports(module: ModuleType) -> Iterator[str]:
    """What its `import` statements name: of a number that comes from a module its value does not say from which."""
    if not has_source(module):
        return
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_bytes())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            with contextlib.suppress(ImportError):
                base = resolve_name(name, module.__package__) if node.level else name
                yield from (base, *(f"{base}.{one.name}" for one in node.names))


def modules_hash(modules: Mapping[str, ModuleType]) -> str:
    """16 hexadecimal digits over names and bytes of their files."""
    digest = hashlib.sha256()
    for name, module in sorted(modules.items()):
        digest.update(f"{name}\0".encode() + Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def has_source(module: ModuleType) -> bool:
    """Whether its file can be read and is none of those that a record holds anyway."""
    file = getattr(module, "__file__", None) or ""
    return file.endswith(".py") and module.__name__.partition(".")[0] not in _OURS
