"""Messages: openpi's format, and nothing that a stranger could do harm with."""

import msgpack
import numpy as np
import pytest
from openpi_client import msgpack_numpy

from diffusion_policy.serving.wire import MAX_CONTAINERS, WireError, pack, unpack

MESSAGE = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.float32(1.5),
    "no dimensions": np.array(7, np.int64),
    "half": np.ones(3, np.float16),
    "flags": np.array([True, False]),
    "jpeg": b"\xff\xd8",
    "list": [1, 2.5, "text", None, True, [b"a"]],
}


def same(a, b):
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b


@pytest.mark.parametrize("packer", [pack, msgpack_numpy.packb])
@pytest.mark.parametrize("unpacker", [unpack, msgpack_numpy.unpackb])
def test_messages_are_those_of_openpi(packer, unpacker):
    received = unpacker(packer(MESSAGE))
    assert received.keys() == MESSAGE.keys()
    for key, value in MESSAGE.items():
        assert same(value, received[key]), key


def test_foreign_byte_order_travels_as_ours():
    received = unpack(pack(np.arange(3, dtype=">f4")))
    assert received.dtype == np.dtype("<f4")
    assert received.tolist() == [0, 1, 2]


def array(data=b"\0" * 8, dtype="<f4", shape=(2,), **other):
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape), **other})


HOSTILE = {
    "object array": array(dtype="|O", shape=(1,)),
    "object in a record": array(dtype=[["a", "|O"]], shape=(1,)),
    "void": array(dtype="|V8", shape=(1,)),
    "text": array(dtype="<U2", shape=(1,)),
    "dates": array(dtype="<M8[s]", shape=(1,)),
    "dtype of commas": array(dtype="f4,f4", shape=(1,)),
    "dtype that is a number": array(dtype=4),
    "dtype that is deep": array(dtype=[[[[]]]]),
    "no dtype": msgpack.packb({b"__ndarray__": True, b"data": b"", b"shape": [0]}),
    "too few bytes": array(shape=(3,)),
    "too many bytes": array(shape=(1,)),
    "huge shape": array(shape=(2**40, 2**40)),
    "shape that overflows to its size": array(shape=(2**32, 2**32, 2)),
    "negative shape": array(shape=(-1, -2)),
    "shape of floats": array(shape=(2.0,)),
    "shape of flags": array(shape=(True, 2)),
    "empty array of huge shape": array(data=b"", shape=(0, 2**62)),
    "many dimensions": array(data=b"\0\0\0\0", shape=(1,) * 33),
    "data that is text": array(data="12345678"),
    "data that is an array": array(data=[1, 2]),
    "scalar that is an object": msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}),
    "scalar out of range": msgpack.packb({b"__npgeneric__": True, b"data": 1000, b"dtype": "|u1"}),
    "scalar that is text": msgpack.packb({b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}),
    "nothing": b"",
    "truncated": pack(MESSAGE)[:-1],
    "something behind": pack(MESSAGE) + b"\0",
    "deep lists": b"\x91" * 100_000,
    "deep maps": b"\x81\xa1a" * 100_000,
    "long list": b"\xdd\xff\xff\xff\xff",
    "long map": b"\xdf\xff\xff\xff\xff",
    "long bytes": b"\xc6\xff\xff\xff\xff",
    "long text": msgpack.packb("a" * 100_000),
    "many empty maps": b"\x98" + (b"\xdc\x00\xff" + b"\x80" * 255) * 8,
    "extension": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "date": b"\xd6\xff\0\0\0\0",
    "keys that are numbers": msgpack.packb({1: 2}),
    "keys that are lists": b"\x81\x90\x90",
    "text that is none": b"\xa1\xff",
    "unused byte": b"\xc1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused(name):
    with pytest.raises(WireError) as caught:
        unpack(HOSTILE[name])
    assert len(str(caught.value)) < 300


def test_as_many_containers_as_allowed_are_read():
    assert len(unpack(msgpack.packb([[]] * 200))) == 200
    with pytest.raises(WireError, match=f"more than {MAX_CONTAINERS} maps and lists"):
        unpack(msgpack.packb([[[]] * 200, [[]] * 200, [[]] * 200]))


@pytest.mark.parametrize("value", [object(), np.array([None]), np.ones(2, complex), np.array(["a"]), {"a": {1, 2}}])
def test_what_cannot_travel_is_not_sent(value):
    with pytest.raises(WireError, match="cannot be packed"):
        pack(value)
