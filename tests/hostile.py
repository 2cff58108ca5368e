"""Checkpoint files built byte by byte, such as no honest program writes."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path


def plain(value: object) -> bytes:
    """Instructions that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Instructions that push what a name stands for."""
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *arguments: object) -> bytes:
    """Instructions that call a name."""
    return name(module, attribute) + plain(arguments) + b"R"


def built(instructions: bytes, state: bytes) -> bytes:
    """Instructions that set the state of what others push."""
    return instructions + state + b"b"


def new(module: str, attribute: str, state: bytes = b"}") -> bytes:
    """Instructions that make an object without arguments, and set its state."""
    return built(name(module, attribute) + b")\x81", state)


def items(**values: bytes) -> bytes:
    """Instructions that push a dict."""
    return b"}(" + b"".join(plain(key) + value for key, value in values.items()) + b"u"


def storage(key: str = "0", numel: int = 4, kind: bytes = name("torch", "FloatStorage")) -> bytes:
    """Instructions that push a tensor's storage."""
    return b"(" + plain("storage") + kind + plain(key) + plain("cpu") + plain(numel) + b"tQ"


def tensor(
    of: bytes = storage(), offset: int = 0, size: object = (4,), stride: object = (1,), hooks: bytes = b"}"
) -> bytes:
    """Instructions that push a tensor."""
    rest = plain(offset) + plain(size) + plain(stride) + b"\x89" + hooks
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + of + rest + b"tR"


def original(cfg: bytes = b"}", state: bytes = b"}", pickles: bytes = b"}") -> bytes:
    """The pickle of a checkpoint of the original repository's format."""
    weights = items(model=state)
    return b"\x80\x02" + items(cfg=cfg, state_dicts=weights, pickles=pickles) + b"."


def write_archive(path: Path, code: bytes, records: Mapping[str, bytes] | None = None, **options: int) -> Path:
    """A zip archive laid out as torch's, with one record of four numbers unless others are given."""
    records = {"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)} if records is None else records
    with zipfile.ZipFile(path, "w", **options) as archive:
        for record, content in {"archive/data.pkl": code, **records, "archive/version": b"3\n"}.items():
            archive.writestr(record, content)
    return path
