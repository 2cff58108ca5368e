import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, GZip

from diffusion_policy.common.zarr_array import (
    check_chunks_compatible,
    copy_array,
    get_optimal_chunks,
    rechunk_recompress_array,
)


def test_optimal_chunks(compat: Path) -> None:
    with np.load(compat / "numerics" / "f_sampler.npz") as fixture:
        cases = json.loads(str(fixture["meta"]))["get_optimal_chunks"]
    for case in cases:
        chunks = get_optimal_chunks(case["shape"], case["dtype"], **case["kw"])
        assert list(chunks) == case["chunks"], case


def test_optimal_chunks_of_empty_shapes_are_valid() -> None:
    assert get_optimal_chunks((0, 3), "f4") == (1, 3)
    assert get_optimal_chunks((5, 0), "f4") == (5, 1)
    assert get_optimal_chunks((), "f4") == ()


def test_check_chunks_compatible() -> None:
    check_chunks_compatible((3, np.int64(2)), (10, 2))
    for chunks in ((3,), (3, 0), (3, -1), (3, 2.0)):
        with pytest.raises(ValueError, match=r"do not fit an array of shape \(10, 2\)"):
            check_chunks_compatible(chunks, (10, 2))


@pytest.fixture
def group() -> zarr.Group:
    group = zarr.create_group({}, zarr_format=2)
    group.create_array("a", data=np.arange(60).reshape(20, 3), chunks=(6, 3), compressors=Blosc())
    return group


def test_rechunk_recompress(group: zarr.Group) -> None:
    kept = rechunk_recompress_array(group, "a")
    assert (kept.chunks, kept.metadata.compressor) == ((6, 3), Blosc())
    shorter = rechunk_recompress_array(group, "a", chunk_length=4)
    assert (shorter.chunks, shorter.metadata.compressor) == ((4, 3), Blosc())
    other = rechunk_recompress_array(group, "a", chunks=(5, 2), compressor=GZip(), tmp_key="aside")
    assert (other.chunks, other.metadata.compressor) == ((5, 2), GZip())
    np.testing.assert_array_equal(other[:], np.arange(60).reshape(20, 3))
    assert list(group.array_keys()) == ["a"]


def test_copy_from_format_3_writes_format_2(group: zarr.Group) -> None:
    source = zarr.create_array({}, data=np.arange(10.0), chunks=(4,), zarr_format=3)
    copy_array(source, group, "b", source.chunks, None)
    assert group["b"].metadata.zarr_format == 2
    np.testing.assert_array_equal(group["b"][:], np.arange(10.0))


def test_copy_keeps_attributes_and_separator_of_equally_encoded_arrays(group: zarr.Group) -> None:
    source = zarr.create_array(
        {},
        data=np.arange(12.0).reshape(4, 3),
        chunks=(2, 2),
        compressors=None,
        zarr_format=2,
        attributes={"unit": "m"},
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    copy_array(source, group, "b", (2, 2), None)
    assert dict(group["b"].attrs) == {"unit": "m"}
    np.testing.assert_array_equal(group["b"][:], source[:])
