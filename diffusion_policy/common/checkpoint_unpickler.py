"""Reads the pickle inside a checkpoint as data: no name in it is ever looked up, imported or called.

The pickle of a checkpoint is a program for a stack machine. This one knows the instructions that `torch.save` uses
and the few names that checkpoints need; what those stand for, `checkpoint_objects` makes. Whatever else a
file asks for is refused by name. All sizes are bounded by the length of the pickle.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from diffusion_policy.common.checkpoint_archive import DamagedError
from diffusion_policy.common.checkpoint_objects import (
    CALLS,
    CONFIG_NODES,
    DTYPES,
    KNOWN,
    STORAGES,
    Name,
    Node,
    Storage,
    UnsafeError,
    checked_key,
    set_versions,
    shown,
)

MOST_INSTRUCTIONS = 4_000_000
_MARK = object()
_RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}


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
        self.top(set).update(map(checked_key, values))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[checked_key(key)] = value

    def set_items(self) -> None:
        values = self.pop_to_mark()
        if len(values) % 2:
            raise DamagedError("its structure has a key without a value")
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

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
        if path in DTYPES:
            self.stack.append(DTYPES[path])
            return
        if path not in KNOWN:
            raise UnsafeError(f"it asks for {path[:200]}, which no checkpoint needs")
        self.stack.append(Name(path))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if arguments != () or not isinstance(kind, Name) or kind.path not in CONFIG_NODES:
            raise UnsafeError(f"it makes a new object of {shown(kind)}")
        self.stack.append(Node(kind.path))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Node) and target.name == "numpy.dtype":
            if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
                raise DamagedError("a number has an unknown byte order")
        elif isinstance(target, Node) and target.state is None and type(state) is dict:
            target.state = state
        elif type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:
            set_versions(target, state.get("_metadata"))
        else:
            raise UnsafeError(f"it sets attributes of a {shown(target)}")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        make = CALLS.get(function.path) if isinstance(function, Name) else None
        if make is None or type(arguments) is not tuple:
            raise UnsafeError(f"it calls {shown(function)}")
        try:
            self.stack.append(make(*arguments))
        except (TypeError, ValueError, OverflowError, LookupError, RuntimeError) as error:
            if isinstance(error, DamagedError | UnsafeError):
                raise
            raise DamagedError(f"{shown(function)} cannot be made of what it has: {error}") from error

    def storage(self) -> None:
        reference = self.pop()
        if type(reference) is not tuple or len(reference) != 5 or reference[0] != "storage":
            raise DamagedError("it refers to something outside that is no tensor's storage")
        _, kind, key, _, numel = reference
        dtype = STORAGES.get(kind.path) if isinstance(kind, Name) else None
        if dtype is None or type(key) is not str or type(numel) is not int or numel < 0 or self.load_storage is None:
            raise DamagedError("the storage of a tensor is described wrongly")
        self.stack.append(self.load_storage(key, dtype, numel))


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
