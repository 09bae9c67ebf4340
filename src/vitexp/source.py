"""Which code makes the numbers: a digest of the package's own source, and the versions of the libraries beneath it.

Both wings read it: training writes it into each record, studies compare it with what made the finished ones.
"""

import contextlib
import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
