"""What the names in a checkpoint's pickle stand for: tensors, containers, numbers, and nodes of a config as data."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.checkpoint_archive import DamagedError

_LARGEST_KEY = 1 << 31

STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
}
CONFIG_NODES = {
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes")),
}
# Types that config nodes mention; nothing is made of them. Pickle's protocol 2 calls int and str as Python 2 did.
_TYPES = {
    "typing.Any",
    *(
        f"builtins.{name}"
        for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "bytes", "long", "unicode")
    ),
}


class UnsafeError(ValueError):
    """A file that asks for something that no checkpoint needs; the message names it."""


class Storage(NamedTuple):
    """Memory that tensors of a file share, and what its bytes mean."""

    memory: torch.UntypedStorage
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class Name:
    """A name that a file mentions, such as `typing.Any`: inert."""

    path: str


class Node:
    """An object of a file that is kept as data: the name of its class, and what it would have been set up with."""

    __slots__ = ("name", "state")

    def __init__(self, name: str, state: Any = None) -> None:
        self.name = name
        self.state = state


def checked_key(key: Any) -> Hashable:
    """A key whose hash neither recurses nor can be chosen to collide with thousands of others."""
    if type(key) is tuple:
        valid = len(key) < 16 and all(type(part) is str for part in key)
    elif type(key) is int:
        valid = abs(key) < _LARGEST_KEY
    else:
        valid = key is None or type(key) in (str, bool)
    if not valid:
        raise DamagedError(f"it has a {type(key).__name__} as a key")
    return key


def set_versions(state: OrderedDict[str, Any], versions: Any) -> None:
    """Keeps the versions of modules that `state_dict()` leaves beside the weights."""
    plain = isinstance(versions, dict) and all(
        isinstance(key, str) and isinstance(value, dict) and all(type(number) is int for number in value.values())
        for key, value in versions.items()
    )
    if not plain:
        raise DamagedError("the versions of its modules are no numbers")
    state._metadata = versions  # type: ignore[attr-defined]


def shown(value: Any) -> str:
    if isinstance(value, Name):
        return value.path
    return value.name if isinstance(value, Node) else type(value).__name__


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise DamagedError("a tensor is described wrongly")
    if hooks or metadata:
        raise UnsafeError("a tensor comes with hooks or attributes")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 64 or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers):
        raise DamagedError("the shape of a tensor is described wrongly")
    numel, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        numel *= length
        last += (length - 1) * step
    if numel > storage.numel or (numel and last >= storage.numel):
        raise DamagedError(f"a tensor of shape {size} does not fit in its {storage.numel} numbers")
    tensor = torch.empty(0, dtype=storage.dtype, device=storage.memory.device)
    tensor.set_(storage.memory, offset if numel else 0, size, stride)
    return tensor.requires_grad_(requires_grad is True)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if not isinstance(data, Tensor) or hooks:
        raise UnsafeError("a parameter comes with hooks")
    return data.detach().requires_grad_(requires_grad is True)


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise UnsafeError("it encodes something else than bytes")
    return text.encode("latin-1")


def _type_named(name: Any) -> Name:
    if type(name) is not str or len(name) > 40:
        raise DamagedError("a type has no name")
    return Name(f"dill.{name}")


def _default_dict(kind: Any) -> dict[Any, Any]:
    if not isinstance(kind, Name):
        raise UnsafeError(f"a dict would call {shown(kind)} for what it lacks")
    return {}


def _numpy_type(code: Any, align: Any = False, copy: Any = True) -> Node:
    if type(code) is not str or code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise DamagedError(f"a number is of numpy's type {str(code)[:40]!r}")
    return Node("numpy.dtype", code)


def _numpy_scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, Node) or dtype.name != "numpy.dtype" or type(content) is not bytes:
        raise DamagedError("a number of numpy's is described wrongly")
    (value,) = np.frombuffer(content, "<" + dtype.state)
    return value.item()


def _complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise DamagedError("a complex number is described wrongly")
    return complex(real, imaginary)


def _size(lengths: Any) -> torch.Size:
    if type(lengths) is not tuple or not all(type(n) is int and 0 <= n < 1 << 62 for n in lengths):
        raise DamagedError("a shape is described wrongly")
    return torch.Size(lengths)


def _device(kind: Any, index: Any = None) -> torch.device:
    if type(kind) is not str or not (index is None or type(index) is int):
        raise DamagedError("a device is described wrongly")
    return torch.device(kind, index) if index is not None else torch.device(kind)


def _set_of(values: Any) -> set[Hashable]:
    if type(values) is not list:
        raise DamagedError("a set is described wrongly")
    return set(map(checked_key, values))


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": lambda: OrderedDict(),
    "collections.defaultdict": _default_dict,
    "_codecs.encode": _encoded,
    "builtins.bytes": lambda: b"",
    "builtins.set": _set_of,
    "builtins.complex": _complex,
    "torch.Size": _size,
    "torch.device": _device,
    "dill._dill._load_type": _type_named,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
}
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}
KNOWN = {*CALLS, *STORAGES, *CONFIG_NODES, *_TYPES}
