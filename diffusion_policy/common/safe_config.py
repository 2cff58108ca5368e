"""Interpolations of a config that came with a checkpoint, resolved as data: arithmetic, dates and other keys only."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from diffusion_policy.common.arithmetic import NotArithmeticError, evaluate
from diffusion_policy.common.config import ConfigError

MOST_VALUES = 100_000
DEEPEST = 50
LONGEST_TEXT = 10_000

Evaluator = Callable[[str], Any]


class UnsafeConfigError(ConfigError):
    """A config that asks for more than data; the message names the key and what it asks for."""


def resolved_config(cfg: dict[str, Any], evaluator: Evaluator = evaluate) -> dict[str, Any]:
    """The config without interpolations.

    `${key.path}` and `${.relative}` stand for other values, `${now:FORMAT}` for the present time, `${eval:...}` for
    the value of an expression. No other resolver is known: `${oc.env:...}`, for one, would tell a stranger's config
    what is in the environment.

    Args:
        cfg: plain containers, as `read_checkpoint` gives them.
        evaluator: of expressions.

    Raises:
        UnsafeConfigError: an expression is no arithmetic, or a resolver unknown.
        ConfigError: an interpolation refers to nothing or to itself, or the result is endless.
    """
    resolved: dict[str, Any] = _Resolver(cfg, evaluator).value(cfg, (), 0)
    return resolved


class _Resolver:
    def __init__(self, root: dict[str, Any], evaluator: Evaluator) -> None:
        self.root = root
        self.evaluator = evaluator
        self.budget = MOST_VALUES
        self.open: list[tuple[Any, ...]] = []

    def value(self, value: Any, path: tuple[Any, ...], depth: int) -> Any:
        """A value at a path with everything below it resolved."""
        self.budget -= 1
        if self.budget < 0 or depth > DEEPEST:
            raise ConfigError(f"{_dotted(path)} of the config unfolds into more values than any config has")
        if isinstance(value, dict):
            return {key: self.value(each, (*path, key), depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, (*path, i), depth + 1) for i, each in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            result = self.text(value, path, depth)
            if isinstance(result, str) and "${" in result:  # OmegaConf would resolve it again, with all it knows
                raise UnsafeConfigError(f"{_dotted(path)} of the config puts an interpolation together from pieces")
            return result
        return value

    def text(self, text: str, path: tuple[Any, ...], depth: int) -> Any:
        """Text with its interpolations replaced; of a single one, the value itself."""
        if len(text) > LONGEST_TEXT:
            raise ConfigError(f"{_dotted(path)} of the config is longer than {LONGEST_TEXT} characters")
        parts: list[Any] = []
        at = 0
        while (start := text.find("${", at)) >= 0:
            end = _closing(text, start, path)
            parts += [text[at:start], self.interpolation(text[start + 2 : end - 1], path, depth + 1)]
            at = end
        parts.append(text[at:])
        parts = [part for part in parts if not (isinstance(part, str) and part == "")]
        if len(parts) == 1:
            return parts[0]
        joined = "".join(map(str, parts))
        if len(joined) > LONGEST_TEXT:
            raise ConfigError(f"{_dotted(path)} of the config unfolds into more than {LONGEST_TEXT} characters")
        return joined

    def interpolation(self, inner: str, path: tuple[Any, ...], depth: int) -> Any:
        if depth > DEEPEST:
            raise ConfigError(f"{_dotted(path)} of the config has interpolations inside interpolations without end")
        resolver, colon, argument = inner.partition(":")
        if not colon or "${" in resolver:
            return self.reference(str(self.text(inner, path, depth)).strip(), path, depth)
        resolver = resolver.strip()
        if resolver not in ("eval", "now"):
            raise UnsafeConfigError(
                f"{_dotted(path)} of the config asks for the resolver {resolver[:40]!r}; there are eval and now"
            )
        argument = str(self.text(_unquoted(argument.strip()), path, depth))
        if resolver == "now":
            return datetime.now().strftime(argument[:100])
        try:
            return self.evaluator(argument)
        except NotArithmeticError as error:
            raise UnsafeConfigError(f"{_dotted(path)} of the config: {error}") from error

    def reference(self, name: str, path: tuple[Any, ...], depth: int) -> Any:
        target = _target_path(name, path)
        if target in self.open:
            raise ConfigError(f"{_dotted(path)} of the config refers to itself by ${{{name[:80]}}}")
        self.open.append(target)
        try:
            return self.value(self.look_up(target, name, path, depth), target, depth + 1)
        finally:
            self.open.pop()

    def look_up(self, target: tuple[Any, ...], name: str, path: tuple[Any, ...], depth: int) -> Any:
        node: Any = self.root
        for i, key in enumerate(target):
            if isinstance(node, str) and "${" in node:  # a section that stands for another
                node = self.text(node, target[:i], depth + 1)
            if isinstance(node, list) and key.isdecimal() and len(key) < 9 and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise ConfigError(f"{_dotted(path)} of the config refers to ${{{name[:80]}}}, which is not there")
        return node


def _closing(text: str, start: int, path: tuple[Any, ...]) -> int:
    """Where the interpolation that starts at `start` ends."""
    level = 0
    at = start
    while at < len(text):
        if text.startswith("${", at):
            level += 1
            at += 2
            continue
        if text[at] == "}":
            level -= 1
            if level == 0:
                return at + 1
        at += 1
    raise ConfigError(f"{_dotted(path)} of the config has an interpolation without end: {text[start : start + 80]!r}")


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted and text[0] not in text[1:-1] else text


def _target_path(name: str, path: tuple[Any, ...]) -> tuple[str, ...]:
    """Keys from the root to what `a.b[0]` means there, or `.b` (beside) and `..b` (beside the parent)."""
    plain = name.lstrip(".")
    ups = len(name) - len(plain)
    if ups > len(path):
        raise ConfigError(f"{_dotted(path)} of the config refers to ${{{name[:80]}}}, which is above the top")
    base = tuple(map(str, path[: len(path) - ups])) if ups else ()
    return base + tuple(plain.replace("[", ".").replace("]", "").split("."))


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))[:200] or "the top"
