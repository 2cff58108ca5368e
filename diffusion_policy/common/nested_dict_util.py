"""Functions on the leaves of dicts in dicts."""

import functools
from collections.abc import Callable
from typing import Any


def nested_dict_map(f: Callable[[Any], Any], x: Any) -> Any:
    """`x` with `f(leaf)` in place of every leaf."""
    if isinstance(x, dict):
        return {key: nested_dict_map(f, value) for key, value in x.items()}
    return f(x)


def nested_dict_reduce(f: Callable[[Any, Any], Any], x: Any) -> Any:
    """All leaves of `x`, joined by `f` from left to right; a dict needs one at least."""
    if isinstance(x, dict):
        return functools.reduce(f, (nested_dict_reduce(f, value) for value in x.values()))
    return x


def nested_dict_check(f: Callable[[Any], Any], x: Any) -> bool:
    """Whether `f(leaf)` holds for every leaf of `x`."""
    if isinstance(x, dict):
        return all(nested_dict_check(f, value) for value in x.values())
    return bool(f(x))
