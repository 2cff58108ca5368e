"""States of modules, optimizers and counters as plain data: for files, and for copies that training does not touch."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from omegaconf import ListConfig
from torch import Tensor

_LEAVES = {bool, int, float, complex, bytes, type(None), torch.dtype, torch.device, torch.Size}


def plain_copy(state: Any, of_tensor: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """A copy with containers of its own, such that equal states become equal bytes.

    A file tells one object met twice from two that are equal; here equal texts become one object, and containers are
    never shared. Ordered dicts keep what modules attach to them (their versions).

    Args:
        state: nested dicts, lists and tuples of tensors, numbers and texts.
        of_tensor: what is to stand for a tensor.

    Raises:
        TypeError: for anything else, which could not be read back without running code; says where it is.
    """
    return _PlainCopy(of_tensor)(state, "")


class HostSnapshots:
    """Copies states into the CPU's memory, from a GPU through pinned buffers that the next snapshot uses again.

    A snapshot holds each weight by itself, also those that are views of a larger buffer: a file holds the whole
    storage of every tensor in it. Weights that two names share stay shared.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def take(self, state: Any) -> Any:
        """A plain copy of a state; the snapshot before it is overwritten."""
        copies: dict[Any, Tensor] = {}
        devices = set()
        buffers = iter(self._buffers)
        self._buffers = []

        def copied(tensor: Tensor) -> Tensor:
            place = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
            if tensor.numel() == 0 or place not in copies:
                buffer = _fitting(next(buffers, None), tensor)
                self._buffers.append(buffer)
                buffer.copy_(tensor, non_blocking=True)
                devices.add(tensor.device)
                copies[place] = buffer
            return copies[place]

        with torch.no_grad():
            snapshot = plain_copy(state, copied)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()
        return snapshot


def _fitting(buffer: Tensor | None, tensor: Tensor) -> Tensor:
    """The buffer if it is laid out as a dense copy of the tensor would be, else a new one."""
    layout = torch.empty_like(tensor, device="meta")
    pinned = tensor.is_cuda
    if (
        buffer is not None
        and (buffer.dtype, buffer.shape, buffer.stride()) == (layout.dtype, layout.shape, layout.stride())
        and buffer.is_pinned() == pinned
    ):
        return buffer
    return torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype, pin_memory=pinned)


class _PlainCopy:
    def __init__(self, of_tensor: Callable[[Tensor], Tensor]) -> None:
        self._of_tensor = of_tensor
        self._texts: dict[str, str] = {}

    def __call__(self, value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            return self._of_tensor(value.detach())
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return self._dict(value, where)
        if isinstance(value, list | tuple | ListConfig) and not isinstance(value, torch.Size):
            copies = [self(each, f"{where}[{i}]") for i, each in enumerate(value)]
            return tuple(copies) if isinstance(value, tuple) else copies
        if isinstance(value, np.generic):
            return value.item()
        if type(value) in _LEAVES:
            return value
        raise TypeError(
            f"{where.lstrip('.') or 'the state'} is a {type(value).__name__}: a checkpoint takes tensors, numbers, "
            "texts, and dicts, lists and tuples of them"
        )

    def _text(self, text: str) -> str:
        text = str(text)  # a plain one of a subclass
        return self._texts.setdefault(text, text)

    def _dict(self, value: Mapping[Any, Any], where: str) -> dict[Any, Any]:
        copies = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, each in value.items():
            copies[self(key, f"{where}.{key}")] = self(each, f"{where}.{key}")
        attributes = getattr(value, "__dict__", None) if isinstance(value, OrderedDict) else None
        for name, attribute in (attributes or {}).items():
            setattr(copies, name, self(attribute, f"{where}.{name}"))
        return copies
