"""The zip archive of a checkpoint, read strictly: every byte that is used lies in one record and has its checksum."""

import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import imagecodecs
import numpy as np

_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_LONGEST_COMMENT = 0xFFFF
_LARGEST_DIRECTORY = 32 << 20
_LARGEST_RECORD_IN_MEMORY = 32 << 20
_CHUNK = 1 << 20
"""Bytes read at a time: still in the processor's cache when their checksum is taken."""

# libdeflate's is several times faster than zlib's, which a build of imagecodecs may be left with.
_crc32: Callable[..., int] = imagecodecs.deflate_crc32 if imagecodecs.DEFLATE.available else zlib.crc32

_KINDS = {
    b"\x80\x02\x8a\x0al\xfc\x9cF": "a file of torch before 1.6, whose pickle comes before its tensors",
    b"\xfd7zXZ\x00": "compressed with xz: unpack it with xz -d",
    b"\x1f\x8b": "compressed with gzip: unpack it with gunzip",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a bare pickle (of a whole workspace, such as snapshots/latest.pkl?)",
}


class DamagedError(ValueError):
    """Bytes that contradict each other: the file is truncated, altered, or made to mislead."""


class ForeignError(ValueError):
    """A file of some other kind; the message says which."""


@dataclass(frozen=True)
class _Record:
    name: str
    start: int
    size: int
    crc: int


class CheckpointArchive:
    """The records of a file that `torch.save` wrote: stored, in one folder, apart from each other.

    Raises:
        ForeignError: the file is something else.
        DamagedError: it is an archive whose parts do not fit together.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for somebody to write to it
            raise ForeignError("a folder" if stat.S_ISDIR(mode) else "no regular file")
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._size = os.fstat(self._descriptor).st_size
            self._records = self._read_directory()
            self._unread = set(self._records)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def size(self, name: str) -> int:
        """Bytes of a record."""
        return self._record(name).size

    def read(self, name: str) -> bytes:
        """A record that is small enough for all that it may turn into."""
        size = self.size(name)
        if size > _LARGEST_RECORD_IN_MEMORY:
            raise DamagedError(f"record {name} has {size} bytes, more than the structure of any checkpoint")
        content = np.empty(size, np.uint8)
        self.read_into(name, content)
        return content.tobytes()

    def read_into(self, name: str, target: np.ndarray) -> None:
        """Reads a record into bytes `(size,)` and checks its checksum on the way."""
        record = self._record(name)
        crc = 0
        for at in range(0, record.size, _CHUNK):
            chunk = target[at : at + _CHUNK]
            if os.preadv(self._descriptor, [chunk.data], record.start + at) != len(chunk):
                raise DamagedError(f"it ends inside record {name}")
            crc = _crc32(chunk, crc)
        if crc != record.crc:
            raise DamagedError(f"checksum of record {name}")
        self._unread.discard(name)

    def verify(self) -> None:
        """Checks the records that nobody has read: afterwards every record is known to be as it was written."""
        buffer = np.empty(max((self.size(name) for name in self._unread), default=0), np.uint8)
        for name in sorted(self._unread, key=lambda name: self._records[name].start):
            self.read_into(name, buffer[: self.size(name)])

    def _record(self, name: str) -> _Record:
        if name not in self._records:
            raise DamagedError(f"record {name} is missing")
        return self._records[name]

    def _read_directory(self) -> dict[str, _Record]:
        start, size, count = self._find_directory()
        directory = self._bytes(start, size, "its table of contents")
        entries = []
        at = 0
        while at < size:
            entry, at = _central_entry(directory, at)
            entries.append(entry)
        _check_kind([name for name, *_ in entries])
        if len(entries) != count:
            raise DamagedError(f"its table of contents has {len(entries)} of {count} records")
        records = {}
        end = 0
        for name, header, length, crc in sorted(entries, key=lambda entry: entry[1]):
            if length < 0:
                raise DamagedError(f"record {name} is compressed or encrypted, which no checkpoint's is")
            if header < end:
                raise DamagedError(f"record {name} overlaps the one before it")
            data = self._data_start(name, header, length)
            end = data + length
            if end > start:
                raise DamagedError(f"record {name} claims {length} bytes, more than the file holds")
            if name in records:
                raise DamagedError(f"record {name} is there twice")
            records[name] = _Record(name, data, length, crc)
        return _without_folder(records)

    def _find_directory(self) -> tuple[int, int, int]:
        if self._size < 22:
            raise DamagedError(f"it is truncated to {self._size} bytes" if self._size else "it is empty")
        tail_start = max(0, self._size - _LONGEST_COMMENT - 22)
        tail = self._bytes(tail_start, self._size - tail_start, "its end")
        at = tail.rfind(_END)
        if at < 0 or at + 22 > len(tail):
            raise self._no_archive()
        _, _, _, count, size, start, comment = struct.unpack_from("<4H2IH", tail, at + 4)
        if at + 22 + comment != len(tail):
            raise DamagedError("its end is not where it should be")
        if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
            (end64,) = struct.unpack_from("<Q", tail, at - 12)
            found = self._bytes(end64, 56, "its end")
            if found[:4] != _END64:
                raise DamagedError("its table of contents is not where it should be")
            count, size, start = struct.unpack_from("<3Q", found, 32)
        if size > _LARGEST_DIRECTORY or start + size > tail_start + at:
            raise DamagedError(f"its table of contents claims {size} bytes at {start}")
        return start, size, count

    def _no_archive(self) -> ValueError:
        head = self._bytes(0, min(self._size, 64), "its start")
        if head.startswith(b"PK\x03\x04"):
            return DamagedError("it is truncated: the end of the archive is missing")
        if head[8:9] == b"{" and len(head) > 8 and struct.unpack_from("<Q", head)[0] < self._size:
            return ForeignError("a safetensors file")
        for magic, kind in _KINDS.items():
            if head.startswith(magic):
                return ForeignError(kind)
        if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
            return ForeignError(f"a text file that begins {head[:24].decode()!r}")
        return ForeignError(f"truncated, or no archive of tensors; it begins {head[:8]!r}")

    def _data_start(self, name: str, header: int, size: int) -> int:
        found = self._bytes(header, _LOCAL.size, f"record {name}")
        magic, _, flags, method, *_, packed, full, name_length, extra_length = _LOCAL.unpack(found)
        if magic != b"PK\x03\x04" or method != 0:
            raise DamagedError(f"record {name} is not where it should be")
        if self._bytes(header + _LOCAL.size, name_length, f"record {name}") != name.encode():
            raise DamagedError(f"record {name} has another name in its own header")
        sizes = {packed, full} - {0xFFFFFFFF} - ({0} if flags & 8 else set())
        if sizes - {size}:
            raise DamagedError(f"record {name} has another size in its own header")
        return header + _LOCAL.size + name_length + extra_length

    def _bytes(self, start: int, size: int, what: str) -> bytes:
        if start + size > self._size:
            raise DamagedError(f"it is truncated: {what} would reach beyond its {self._size} bytes")
        content = os.pread(self._descriptor, size, start)
        if len(content) != size:
            raise DamagedError(f"it ends inside {what}")
        return content


def _check_kind(names: list[str]) -> None:
    inside = [name.partition("/")[2] for name in names]
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise ForeignError("a TorchScript archive, which holds a program")
    if "data.pkl" not in inside:
        raise ForeignError(
            f"a zip archive without data.pkl; it holds {', '.join(sorted(names)[:3])[:200] or 'nothing'}"
        )


def _central_entry(directory: bytes, at: int) -> tuple[tuple[str, int, int, int], int]:
    """Name, header's offset, size (-1: packed) and checksum of the entry at `at`; and where the next begins."""
    if at + _CENTRAL.size > len(directory):
        raise DamagedError("its table of contents is cut off")
    fields = _CENTRAL.unpack_from(directory, at)
    magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length = fields[:13]
    header = fields[-1]
    name_at = at + _CENTRAL.size
    extra_at = name_at + name_length
    end = extra_at + extra_length + comment_length
    if magic != b"PK\x01\x02" or end > len(directory):
        raise DamagedError("its table of contents is not one")
    try:
        name = directory[name_at:extra_at].decode()
    except UnicodeDecodeError as error:
        raise DamagedError("the name of a record is not text") from error
    size, packed, header = _long_sizes(directory[extra_at : extra_at + extra_length], size, packed, header)
    is_stored = not flags & 1 and method == 0 and packed == size
    return (name, header, size if is_stored else -1, crc), end


def _long_sizes(extra: bytes, *values: int) -> list[int]:
    """Replaces the values that do not fit in 32 bits with those of the zip64 field."""
    result = list(values)
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            content = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if len(content) < 8:
                        raise DamagedError("the size of a record is cut off")
                    (result[i],) = struct.unpack_from("<Q", content)
                    content = content[8:]
        at += 4 + length
    return result


def _without_folder(records: dict[str, _Record]) -> dict[str, _Record]:
    """The records by their name in the one folder that all are in."""
    folders = set()
    result = {}
    for name, record in records.items():
        folder, _, rest = name.partition("/")
        if not rest or "\\" in name or not name.isprintable() or {"", ".", ".."} & set(name.split("/")):
            raise DamagedError(f"a record has the name {name[:80]!r}, which torch gives to none")
        folders.add(folder)
        result[rest] = record
    if len(folders) > 1:
        raise DamagedError("its records are in several folders")
    return result
