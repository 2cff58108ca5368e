"""Reads the pickle inside a checkpoint as data: no name in it is ever looked up, imported or called.

The pickle of a checkpoint is a program for a stack machine. This one knows the instructions that `torch.save` uses
and the few names that checkpoints need; what those stand for is made by functions of this module. Whatever else a
file asks for is refused by name. All sizes are bounded by the length of the pickle.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.checkpoint_archive import DamagedError

MOST_INSTRUCTIONS = 4_000_000
_LARGEST_KEY = 1 << 31
_MARK = object()

_STORAGES = {
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
_CONFIG_NODES = {
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
_RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}


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


def load_plain(pickle: bytes, load_storage: Callable[[str, torch.dtype, int], Storage] | None = None) -> Any:
    """Runs a pickle that builds tensors, containers, numbers, text and config nodes.

    Args:
        pickle: its bytes.
        load_storage: gives the storage of a record's name, type and number of elements; None if there is none to have.

    Raises:
        UnsafeError: it asks for anything else.
        DamagedError: it is no such pickle.
    """
    machine = _Machine(pickle, load_storage)
    try:
        return machine.run()
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise DamagedError(f"its structure breaks off at byte {machine.at} of {len(pickle)}") from error


class _Machine:
    def __init__(self, code: bytes, load_storage: Callable[[str, torch.dtype, int], Storage] | None) -> None:
        self.code = code
        self.load_storage = load_storage
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}  # not the array of CPython's machine, whose length the file would choose

    def run(self) -> Any:
        code, instructions = self.code, _INSTRUCTIONS
        for _ in range(MOST_INSTRUCTIONS):
            instruction = code[self.at]
            self.at += 1
            if instruction == 0x2E:  # STOP
                break
            step = instructions.get(instruction)
            if step is None:
                raise DamagedError(f"its structure has the instruction {instruction:#04x}, which torch.save never uses")
            step(self)
        else:
            raise DamagedError(f"its structure has more than {MOST_INSTRUCTIONS} parts")
        (result,) = self.stack if len(self.stack) == 1 else (_MARK,)
        if result is _MARK:
            raise DamagedError("its structure is not whole")
        return result

    def take(self, size: int) -> bytes:
        piece = self.code[self.at : self.at + size]
        if len(piece) != size:
            raise DamagedError("its structure is cut off")
        self.at += size
        return piece

    def number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack(self.take(layout.size))
        return value

    def line(self) -> str:
        end = self.code.find(b"\n", self.at, self.at + 512)
        if end < 0:
            raise DamagedError("its structure is cut off")
        text = self.take(end - self.at + 1)
        return text[:-1].decode()

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise DamagedError("its structure lacks a part")
        return value

    def pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise DamagedError("its structure lacks the start of a part")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        target = self.stack[-1]
        if type(target) not in (kind, OrderedDict if kind is dict else kind):
            raise DamagedError(f"its structure puts values into a {type(target).__name__}, not a {kind.__name__}")
        return target

    def protocol(self) -> None:
        if self.take(1)[0] > 5:
            raise DamagedError("its structure is of a pickle protocol that does not exist")

    def frame(self) -> None:
        self.take(8)

    def mark(self) -> None:
        self.stack.append(_MARK)

    def text(self, layout: struct.Struct) -> None:
        self.stack.append(self.take(self.number(layout)).decode("utf-8", "surrogatepass"))

    def content(self, layout: struct.Struct) -> None:
        self.stack.append(self.take(self.number(layout)))

    def value(self, layout: struct.Struct) -> None:
        self.stack.append(self.number(layout))

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def tuple_of(self, size: int) -> None:
        self.stack.append(tuple(reversed([self.pop() for _ in range(size)])))

    def tuple_to_mark(self) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def appends(self) -> None:
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def add_items(self) -> None:
        values = self.pop_to_mark()
        self.top(set).update(map(_key, values))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[_key(key)] = value

    def set_items(self) -> None:
        values = self.pop_to_mark()
        if len(values) % 2:
            raise DamagedError("its structure has a key without a value")
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def put(self, layout: struct.Struct) -> None:
        self._put(self.number(layout))

    def memoize(self) -> None:
        self._put(len(self.memo))

    def _put(self, index: int) -> None:
        value = self.pop()
        self.memo[index] = value
        self.stack.append(value)

    def get(self, layout: struct.Struct) -> None:
        index = self.number(layout)
        if index not in self.memo:
            raise DamagedError(f"its structure refers to part {index}, which there is none of")
        self.stack.append(self.memo[index])

    def global_name(self) -> None:
        module = self.line()
        self._push_name(module, self.line())

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DamagedError("its structure has a name that is not text")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        path = f"{_RENAMED.get(module, module)}.{name}"
        if path in _DTYPES:
            self.stack.append(_DTYPES[path])
            return
        if path not in _KNOWN:
            raise UnsafeError(f"it asks for {path[:200]}, which no checkpoint needs")
        self.stack.append(Name(path))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if arguments != () or not isinstance(kind, Name) or kind.path not in _CONFIG_NODES:
            raise UnsafeError(f"it makes a new object of {_shown(kind)}")
        self.stack.append(Node(kind.path))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Node) and target.name == "numpy.dtype":
            if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
                raise DamagedError("a number has an unknown byte order")
        elif isinstance(target, Node) and target.state is None and type(state) is dict:
            target.state = state
        elif type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:
            _set_versions(target, state.get("_metadata"))
        else:
            raise UnsafeError(f"it sets attributes of a {_shown(target)}")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        make = _CALLS.get(function.path) if isinstance(function, Name) else None
        if make is None or type(arguments) is not tuple:
            raise UnsafeError(f"it calls {_shown(function)}")
        try:
            self.stack.append(make(*arguments))
        except (TypeError, ValueError, OverflowError, LookupError, RuntimeError) as error:
            if isinstance(error, DamagedError | UnsafeError):
                raise
            raise DamagedError(f"{_shown(function)} cannot be made of what it has: {error}") from error

    def storage(self) -> None:
        reference = self.pop()
        if type(reference) is not tuple or len(reference) != 5 or reference[0] != "storage":
            raise DamagedError("it refers to something outside that is no tensor's storage")
        _, kind, key, _, numel = reference
        dtype = _STORAGES.get(kind.path) if isinstance(kind, Name) else None
        if dtype is None or type(key) is not str or type(numel) is not int or numel < 0 or self.load_storage is None:
            raise DamagedError("the storage of a tensor is described wrongly")
        self.stack.append(self.load_storage(key, dtype, numel))


def _key(key: Any) -> Hashable:
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


def _set_versions(state: OrderedDict[str, Any], versions: Any) -> None:
    """Keeps the versions of modules that `state_dict()` leaves beside the weights."""
    plain = isinstance(versions, dict) and all(
        isinstance(key, str) and isinstance(value, dict) and all(type(number) is int for number in value.values())
        for key, value in versions.items()
    )
    if not plain:
        raise DamagedError("the versions of its modules are no numbers")
    state._metadata = versions  # type: ignore[attr-defined]


def _shown(value: Any) -> str:
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
        raise UnsafeError(f"a dict would call {_shown(kind)} for what it lacks")
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
    return set(map(_key, values))


_CALLS: dict[str, Callable[..., Any]] = {
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
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
_KNOWN = {*_CALLS, *_STORAGES, *_CONFIG_NODES, *_TYPES}


def _constant(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make())


def _with(method: Callable[..., None], argument: Any) -> Callable[[_Machine], None]:
    return lambda machine: method(machine, argument)


_U1, _U2, _I4, _U4, _U8, _F8 = (struct.Struct(code) for code in ("<B", "<H", "<i", "<I", "<Q", ">d"))
_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.protocol,
        "\x95": _Machine.frame,
        "(": _Machine.mark,
        "N": _constant(lambda: None),
        "\x88": _constant(lambda: True),
        "\x89": _constant(lambda: False),
        "}": _constant(dict),
        "]": _constant(list),
        ")": _constant(tuple),
        "\x8f": _constant(set),
        "K": _with(_Machine.value, _U1),
        "M": _with(_Machine.value, _U2),
        "J": _with(_Machine.value, _I4),
        "G": _with(_Machine.value, _F8),
        "\x8a": _Machine.long,
        "X": _with(_Machine.text, _U4),
        "\x8c": _with(_Machine.text, _U1),
        "B": _with(_Machine.content, _U4),
        "C": _with(_Machine.content, _U1),
        "\x85": _with(_Machine.tuple_of, 1),
        "\x86": _with(_Machine.tuple_of, 2),
        "\x87": _with(_Machine.tuple_of, 3),
        "t": _Machine.tuple_to_mark,
        "a": _Machine.append,
        "e": _Machine.appends,
        "\x90": _Machine.add_items,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "q": _with(_Machine.put, _U1),
        "r": _with(_Machine.put, _U4),
        "\x94": _Machine.memoize,
        "h": _with(_Machine.get, _U1),
        "j": _with(_Machine.get, _U4),
        "c": _Machine.global_name,
        "\x93": _Machine.stack_global,
        "\x81": _Machine.new_object,
        "b": _Machine.build,
        "R": _Machine.call,
        "Q": _Machine.storage,
    }.items()
}
