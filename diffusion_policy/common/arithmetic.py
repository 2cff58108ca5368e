"""Arithmetic in text, computed without Python's `eval`."""

import ast
import operator
from collections.abc import Callable
from typing import Any

LONGEST_EXPRESSION = 500
LARGEST_NUMBER = 2**63

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class NotArithmeticError(ValueError):
    """Text that is not arithmetic, or whose result is out of bounds."""


def evaluate(expression: str) -> Any:
    """The value of numbers, text, `None`, `True` and `False` under `+ - * / // % **`, comparisons, `and`, `or`, `not`
    and `a if c else b`.

    Raises:
        NotArithmeticError: it is longer or asks for anything else, or a number exceeds 2^63.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise NotArithmeticError(f"the expression has {len(expression)} characters, more than {LONGEST_EXPRESSION}")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise NotArithmeticError(f"{expression!r} is not arithmetic") from error
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise NotArithmeticError(f"{expression!r}: {error}") from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_number(left), _number(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_number(left), _number(right)))
        case ast.BoolOp(op=op, values=values):
            return _first_that_decides(values, isinstance(op, ast.Or))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(left), _value(right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body) if _value(test) else _value(orelse)
    raise NotArithmeticError(f"{ast.unparse(node)!r} is not arithmetic")


def _number(node: ast.expr) -> Any:
    value = _value(node)
    if not isinstance(value, int | float):
        raise NotArithmeticError(f"{ast.unparse(node)!r} is not a number")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(base) > 1 and exponent * base.bit_length() > LARGEST_NUMBER.bit_length() * 2:
        raise NotArithmeticError(f"{base} ** {exponent} is too large")
    return _bounded(base**exponent)


def _bounded(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, int) and abs(value) > LARGEST_NUMBER):
        raise NotArithmeticError("a number exceeds 2^63")
    return value


def _first_that_decides(values: list[ast.expr], decisive: bool) -> Any:
    value: Any = None
    for each in values:
        value = _value(each)
        if bool(value) is decisive:
            break
    return value
