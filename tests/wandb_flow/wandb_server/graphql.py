"""As much GraphQL as the W&B client speaks: a parser of documents, and an executor over plain Python objects.

A field is an attribute of its object (a method takes the arguments) or an item of a dict. An unknown field or argument
is an error in the words of W&B's own server, because the client goes on from those words to older queries.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r'[\s,\ufeff]+|\#[^\n]*|("""(?:.|\n)*?"""|"(?:\\.|[^"\\\n])*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?'
    r"|[_A-Za-z]\w*|\.\.\.|[!$&()\[\]{}:=@|])"
)
_ABSENT = object()


class QueryError(Exception):
    """An entry for the `errors` of a reply, and the reply's status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Node:
    """A field, or (with `name` empty) a fragment: what it is called, what it is given, what is asked of it."""

    name: str = ""
    alias: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    directives: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    selection: list["Node"] | None = None
    fragment: str | None = None
    on_type: str | None = None


@dataclass
class Operation:
    """A query or a mutation."""

    kind: str
    name: str
    defaults: dict[str, Any]
    selection: list[Node]


class Variable(str):
    """The name of a variable in the place of a value."""


def parse(text: str) -> tuple[list[Operation], dict[str, list[Node]]]:
    """The operations and the named fragments of a document."""
    return _Parser(text).document()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = [match[1] for match in _TOKEN.finditer(text) if match[1]]
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, token: str) -> bool:
        found = self.peek() == token
        self.at += found
        return found

    def document(self) -> tuple[list[Operation], dict[str, list[Node]]]:
        operations, fragments = [], {}
        while self.peek():
            kind = "query" if self.peek() == "{" else self.take()
            if kind == "fragment":
                name = self.take()
                self.at += 2  # on TYPE
                fragments[name] = self.selection()
                continue
            name = "" if self.peek() in ("(", "{", "@") else self.take()
            defaults = self.variables() if self.accept("(") else {}
            self.directives()
            operations.append(Operation(kind, name, defaults, self.selection()))
        return operations, fragments

    def variables(self) -> dict[str, Any]:
        defaults = {}
        while not self.accept(")"):
            self.accept("$")
            name = self.take()
            self.accept(":")
            while self.peek() not in ("$", ")", "=", "@"):
                self.take()
            if self.accept("="):
                defaults[name] = self.value()
        return defaults

    def directives(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        while self.accept("@"):
            name = self.take()
            found.append((name, self.pairs(")") if self.accept("(") else {}))
        return found

    def pairs(self, end: str) -> dict[str, Any]:
        read = {}
        while not self.accept(end):
            name = self.take()
            self.accept(":")
            read[name] = self.value()
        return read

    def selection(self) -> list[Node]:
        if not self.accept("{"):
            raise QueryError(f"Syntax Error: expected a selection, found {self.peek()!r}")
        nodes = []
        while not self.accept("}"):
            nodes.append(self.fragment() if self.accept("...") else self.field())
        return nodes

    def fragment(self) -> Node:
        if self.peek() not in ("on", "{", "@"):
            return Node(fragment=self.take(), directives=self.directives())
        on_type = self.take() and self.take() if self.peek() == "on" else None
        return Node(on_type=on_type, directives=self.directives(), selection=self.selection())

    def field(self) -> Node:
        alias = name = self.take()
        if self.accept(":"):
            name = self.take()
        arguments = self.pairs(")") if self.accept("(") else {}
        directives = self.directives()
        return Node(name, alias, arguments, directives, self.selection() if self.peek() == "{" else None)

    def value(self) -> Any:
        token = self.take()
        if token == "$":
            return Variable(self.take())
        if token == "{":
            return self.pairs("}")
        if token == "[":
            items = []
            while not self.accept("]"):
                items.append(self.value())
            return items
        words = {"true": True, "false": False, "null": None}
        if token in words or re.match(r"[_A-Za-z]", token):
            return words.get(token, token)
        return token[3:-3] if token.startswith('"""') else json.loads(token)


class Executor:
    """Answers one operation from a root object."""

    def __init__(self, operation: Operation, fragments: dict[str, list[Node]], variables: dict[str, Any]) -> None:
        self.fragments = fragments
        self.variables = {**operation.defaults, **variables}

    def select(self, value: Any, selection: list[Node] | None) -> Any:
        """What is asked of a value; lists are asked item by item."""
        if value is None or selection is None:
            return value
        if isinstance(value, list):
            return [self.select(item, selection) for item in value]
        answer: dict[str, Any] = {}
        for node in self.expanded(value, selection):
            found = self.select(self.resolve(value, node), node.selection)
            known = answer.get(node.alias)
            answer[node.alias] = {**known, **found} if isinstance(known, dict) and isinstance(found, dict) else found
        return answer

    def expanded(self, value: Any, selection: list[Node]) -> list[Node]:
        """The fields of a selection for this value, those of its fragments among them."""
        fields = []
        for node in selection:
            if not self.included(node):
                continue
            if node.name:
                fields.append(node)
            elif node.on_type in (None, type_name(value)):
                inner = self.fragments[node.fragment] if node.fragment else node.selection or []
                fields += self.expanded(value, inner)
        return fields

    def included(self, node: Node) -> bool:
        """Whether @include and @skip let a node through."""
        asked = {name: bool(self.literal(given.get("if"))) for name, given in node.directives}
        return asked.get("include", True) and not asked.get("skip", False)

    def literal(self, value: Any) -> Any:
        """A value with its variables filled in."""
        if isinstance(value, Variable):
            return self.variables.get(value, _ABSENT)
        if isinstance(value, dict):
            filled = {key: self.literal(item) for key, item in value.items()}
            return {key: item for key, item in filled.items() if item is not _ABSENT}
        return [self.literal(item) for item in value] if isinstance(value, list) else value

    def resolve(self, value: Any, node: Node) -> Any:
        """One field of one object."""
        if node.name == "__typename":
            return type_name(value)
        found = value.get(node.name, _ABSENT) if isinstance(value, dict) else getattr(value, node.name, _ABSENT)
        if found is _ABSENT:
            raise QueryError(f'Cannot query field "{node.name}" on type "{type_name(value)}".')
        if not callable(found):
            return found
        try:
            return found(**self.literal(node.arguments))
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise QueryError(f'Unknown argument on field "{node.name}": {error}') from error


def type_name(value: Any) -> str:
    """The GraphQL type of an object: that of a dict is one of its items, that of an object its class."""
    return str(value.get("__typename", "Object")) if isinstance(value, dict) else type(value).__name__
