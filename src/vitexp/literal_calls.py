"""Calls of a decorator whose arguments are literals, read from source with `ast`: nothing is imported or executed.

So a part and its row of a table stand side by side in a file that needs torch, and the table is read without torch.
"""

import ast
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple


class LiteralCall(NamedTuple):
    """One call, with the module and line that it stands in."""

    module: str
    line: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def literal_calls(package: str, file: str, function: str) -> Iterator[LiteralCall]:
    """The calls of `function` in `file` of a sub-package of vitexp ("eval", "metrics.py"), from top to bottom.

    Raises: ValueError for an argument that is not a literal.
    """
    source = resources.files("vitexp").joinpath(package, file).read_text("utf-8")
    return calls_in(source, f"vitexp.{package}.{file.removesuffix('.py')}", function)


def calls_in(source: str, module: str, function: str) -> Iterator[LiteralCall]:
    """The same in a text. Raises: ValueError for an argument that is not a literal."""
    if f"{function}(" not in source:
        return
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function)
    for call in sorted(named, key=lambda call: call.lineno):
        try:
            arguments = tuple(map(ast.literal_eval, call.args))
            keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        except ValueError as error:
            raise ValueError(
                f"line {call.lineno} of {module}: write the arguments of {function}() out as plain values, because "
                "they are read without running the file"
            ) from error
        yield LiteralCall(module, call.lineno, arguments, keywords)
