"""What a checkpoint's pickle held, as plain data of bounded size."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.common.checkpoint_archive import DamagedError
from diffusion_policy.common.checkpoint_objects import Node

MOST_VALUES = 2_000_000
DEEPEST = 50
MOST_CONFIG_VALUES = 100_000


def check_plain(content: Any) -> None:
    """Checks that there are only tensors, containers, numbers and text, and not endlessly many.

    A container that is met twice counts twice: a few nested ones can otherwise stand for more than fits in memory.

    Raises:
        DamagedError: if there is anything else.
    """
    _Walk(MOST_VALUES).check(content, 0)


def plain_config(config: Any) -> Any:
    """A config as dicts and lists, interpolations as text; from OmegaConf's nodes or from plain containers.

    Raises:
        DamagedError: it is no config.
    """
    return _Walk(MOST_CONFIG_VALUES).config(config, 0)


_LEAVES = (Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class _Walk:
    def __init__(self, budget: int) -> None:
        self.budget = budget

    def check(self, value: Any, depth: int) -> None:
        self._count(depth)
        if isinstance(value, Mapping):
            for each in value.values():
                self.check(each, depth + 1)
        elif isinstance(value, list | tuple | set):
            for each in value:
                self.check(each, depth + 1)
        elif not isinstance(value, _LEAVES):
            raise DamagedError(f"it holds a {_kind(value)} outside its config")

    def config(self, value: Any, depth: int) -> Any:
        self._count(depth)
        if isinstance(value, Node):
            return self._node(value, depth)
        if isinstance(value, dict):
            return {key: self.config(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.config(each, depth + 1) for each in value]
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        raise DamagedError(f"its config holds a {_kind(value)}")

    def _node(self, node: Node, depth: int) -> Any:
        state = node.state if isinstance(node.state, dict) else {}
        key = "_content" if node.name.endswith("Config") else "_val"
        if key not in state:
            raise DamagedError(f"its config has a {node.name} without content")
        content = state[key]
        if key == "_content":
            kind = dict if node.name.endswith("DictConfig") else list
            if not isinstance(content, kind | str | None):
                raise DamagedError(f"its config has a {node.name} that holds a {_kind(content)}")
        elif isinstance(content, Node | dict | list | tuple):
            raise DamagedError(f"its config has a {node.name} that holds a {_kind(content)}")
        return self.config(content, depth)

    def _count(self, depth: int) -> None:
        self.budget -= 1
        if self.budget < 0 or depth > DEEPEST:
            raise DamagedError("it unfolds into more values than any checkpoint has")


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Node) else type(value).__name__
