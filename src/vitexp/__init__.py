"""Controlled ablations of the Vision Transformer: networks, exact data, training, and studies with honest statistics.

`dir(vitexp)` is the public list; `__init__.pyi` holds it, with the module of each name. A name is loaded when it is
first used, so `import vitexp` itself takes no time and needs neither torch nor NumPy. Everything else beneath this
package may move or change without notice.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WITHOUT_TORCH = ("vitexp.record", "vitexp.study")


def _public_names() -> dict[str, tuple[str, str]]:
    """The public list: each name's module, and the name it has there.

    The type stub is the one place of the list: type checkers and editors read it, and so does this. Its lines are
    `from MODULE import NAME as PUBLIC`.
    """
    with open(f"{__file__}i", encoding="utf-8") as stub:
        lines = [line.split() for line in stub if line.startswith("from vitexp.")]
    return {words[-1]: (words[1], words[3]) for words in lines}


_PUBLIC = _public_names()
__all__ = sorted(_PUBLIC)  # noqa: PLE0605  (a list all the same)


def __getattr__(name: str) -> Any:
    """Loads a public name at its first use (PEP 562). Raises: AttributeError for any other name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vitexp' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    module, original = _PUBLIC[name]
    if not module.startswith(_WITHOUT_TORCH):
        import_module("vitexp.torch_ops")  # before timm, torchmetrics and lightning; its first lines say why
    value = globals()[name] = getattr(import_module(module), original)
    return value


def __dir__() -> list[str]:
    """The public list, for completion."""
    return list(__all__)
