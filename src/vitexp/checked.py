"""Values from files and servers as the types that they are declared as; a wrong one is refused by its name."""

import marshal
from collections.abc import Mapping
from functools import cache
from sys import intern
from types import UnionType
from typing import Any, get_args, get_origin

Shared = dict[tuple[str, bytes], Any]
"""Mappings that were checked, by their place and what they hold: equal ones are one object, and checked once."""

_DEEPEST = 50
_PLAIN_NUMBERS = {int, float}
_PLAIN = {str, *_PLAIN_NUMBERS}
_NOT_FINITE = ("nan", "inf", "-inf")
_ANY: dict[type, tuple[type, tuple[Any, ...]]] = {dict: (dict, (str, Any)), list: (list, (Any,))}
_KINDS = {
    str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping", list: "a list",
    tuple: "a pair",
}  # fmt: skip


def checked(value: Any, kind: Any, field: str, depth: int = 0) -> Any:
    """`value` as the type `kind` of a field or of its part. Raises: ValueError naming the `field` of another type."""
    if depth > _DEEPEST:
        raise ValueError(f"{field} is nested too deeply")
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair could not be printed later
    if type(value) in _PLAIN and kind in (type(value), Any):
        return value
    base, inner = _parts(kind)
    if base is Any:
        base, inner = _ANY.get(type(value), (type(value), ()))
    if base is UnionType:
        return None if value is None else checked(value, inner[0], field, depth)
    if base is dict and isinstance(value, Mapping):
        return {
            _key(key, inner[0], field): checked(item, inner[1], f"{field}.{key}", depth + 1)
            for key, item in value.items()
        }
    if base in (list, tuple) and isinstance(value, list | tuple) and (base is list or len(value) == len(inner)):
        return _sequence(value, base, inner, field, depth)
    if base is float and (value in _NOT_FINITE or type(value) in (int, float)):
        return _float(value, field)
    if type(value) is not base:
        raise ValueError(f"{field} is {repr(value)[:40]}, which is not {_KINDS.get(base, 'a plain value')}")
    return value


def _sequence(value: Any, base: Any, inner: tuple[Any, ...], field: str, depth: int) -> Any:
    """A list, or a pair, whose parts are often plain numbers of the right types already."""
    if base is tuple and _PLAIN_NUMBERS.issuperset(inner) and tuple(map(type, value)) == inner and depth < _DEEPEST:
        return tuple(value)
    kinds = inner if base is tuple else inner * len(value)
    return base([checked(item, one, field, depth + 1) for item, one in zip(value, kinds, strict=True)])


def _float(value: Any, field: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{field} is beyond any floating-point number") from error


def checked_once(value: Any, kind: Any, field: str, shared: Shared, depth: int = 0) -> Any:
    """The same, where a mapping that was met before at this field is that one, and is not checked again."""
    if type(value) is not dict:
        return checked(value, kind, field, depth)
    place = field, marshal.dumps(value, 2)  # tells 1, 1.0 and true apart, and is quick
    if place not in shared:
        shared[place] = checked(value, kind, field, depth)
    return shared[place]


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return _ANY.get(kind) or (get_origin(kind) or kind, get_args(kind))


def _key(key: Any, kind: Any, field: str) -> Any:
    if type(key) is not str:
        return checked(key, kind, field)
    key.encode()
    return intern(key)  # the same few names in every record
