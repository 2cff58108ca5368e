"""msgpack with numpy arrays, in the format of the openpi client and server; reading is safe whoever has written.

An array is the map `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [...]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": number, b"dtype": ...}`. Nothing is pickled.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    import msgpack
except ImportError as error:
    raise ImportError(
        "remote inference needs msgpack, which is not installed: pip install 'diffusion_policy[serve]'", name="msgpack"
    ) from error

KINDS = ("|b1", "|u1", "|i1", *(f"<{kind}{size}" for kind in "uif" for size in (2, 4, 8)))
DTYPES = {name: np.dtype(name) for name in KINDS}
"""What travels. `|O` among others does not: numpy would take its bytes for addresses."""
MAX_DIMS = 8
MAX_CONTAINERS = 512
MAX_ENTRIES = 256
MAX_TEXT_BYTES = 4096
KEPT_BYTES = 24 << 20


class WireError(ValueError):
    """Bytes that are no message, or a value that cannot be one."""


def pack(message: Any) -> bytes:
    """A message of maps, lists, text, bytes, numbers and arrays as bytes.

    Raises:
        WireError: naming what cannot travel.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_from_numpy)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"the message cannot be packed: {error}") from None
    return packed


def unpack(data: bytes) -> Any:
    """The message that `pack`, or openpi's, made bytes of. Arrays are read-only views of it.

    Raises:
        WireError: it is damaged, or holds more values, deeper nesting or other dtypes than a message may.
    """
    count = _Counter()
    try:
        return msgpack.unpackb(
            data,
            object_hook=count(_to_numpy),
            list_hook=count(lambda values: values),
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_str_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise WireError(f"the message of {len(data)} bytes cannot be read: {reason}") from None


def keep_freed_memory() -> None:
    """Lets the C library keep the memory of messages for the next ones.

    glibc gives back to the system what is larger than anything that was freed before. Fetching it again, page by page,
    takes longer than all else that happens to images on their way.
    """
    bytearray(KEPT_BYTES)  # allocated and freed


class _Counter:
    """Bounds the number of maps and lists of a message: an empty one takes a byte there and 64 here."""

    def __init__(self) -> None:
        self.left = MAX_CONTAINERS

    def __call__(self, hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def counted(container: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise WireError(f"it has more than {MAX_CONTAINERS} maps and lists")
            return hook(container)

        return counted


def _from_numpy(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} is none of the types that travel")
    dtype = value.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise TypeError(f"dtype {value.dtype} is none of {', '.join(DTYPES)}")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": dtype.str}
    array = np.ascontiguousarray(value, dtype)
    return {b"__ndarray__": True, b"data": array.data, b"dtype": dtype.str, b"shape": value.shape}


def _to_numpy(container: dict[Any, Any]) -> Any:
    if b"__ndarray__" in container:
        return _array(container.get(b"data"), _dtype(container), container.get(b"shape"))
    if b"__npgeneric__" in container:
        number = container.get(b"data")
        if not isinstance(number, int | float):
            raise WireError("a scalar's data is no number")
        return _dtype(container).type(number)
    return container


def _dtype(container: dict[Any, Any]) -> np.dtype[Any]:
    name = container.get(b"dtype")
    if not isinstance(name, str):
        raise WireError(f"a dtype is no text but a {type(name).__name__}")
    if name not in DTYPES:
        raise WireError(f"dtype {name[:20]!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def _array(data: Any, dtype: np.dtype[Any], shape: Any) -> np.ndarray:
    if not isinstance(data, bytes):
        raise WireError("an array's data are no bytes")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and n > 0 for n in shape):
        raise WireError(f"an array's shape is no list of at most {MAX_DIMS} positive integers")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != len(data):
        raise WireError(f"an array of {shape} {dtype} takes {n_bytes} bytes, its data are {len(data)}")
    return np.ndarray(shape, dtype, data)
