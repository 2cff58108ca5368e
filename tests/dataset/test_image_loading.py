import numpy as np
import pytest
import zarr

from diffusion_policy.dataset.image_loading import load_images

ENDS = np.array([7, 20])


def _zarr(images, chunk_length=3):
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=images.shape, dtype=images.dtype, chunks=(chunk_length, *images.shape[1:])
    )
    array[:] = images
    return array


def _images(dtype=np.float32):
    return np.random.default_rng(0).integers(0, 256, (20, 8, 6, 3)).astype(dtype)


def _load(images, **kwargs):
    return load_images(_zarr(images, **kwargs), "img", ENDS, "demo.zarr")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", ">f4"])
@pytest.mark.parametrize("chunk_length", [1, 3, 20])
def test_any_type_becomes_bytes(dtype, chunk_length):
    images = _images(dtype)
    loaded = _load(images, chunk_length=chunk_length)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, images)


def test_many_blocks_are_put_together(monkeypatch):
    monkeypatch.setattr("diffusion_policy.dataset.image_loading._BLOCK_BYTES", 1)
    images = _images()
    np.testing.assert_array_equal(_load(images, chunk_length=2), images)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 0.5, 255.5, 256, 1e10])
def test_other_values_are_refused_with_their_place(value):
    images = _images()
    images[9, 1, 2, 0] = images[15, 0, 0, 0] = value
    text = rf"demo.zarr: 'img' has the value {np.float32(value)} at step 9 \(episode 1\), expected whole numbers"
    with pytest.raises(ValueError, match=text.replace("+", r"\+")):
        _load(images)


def test_integers_out_of_range_are_refused():
    images = _images(np.int32)
    images[3, 0, 0, 0] = 256
    with pytest.raises(ValueError, match=r"the value 256 at step 3 \(episode 0\)"):
        _load(images)


@pytest.mark.parametrize("shape", [(20, 8, 6), (20, 8, 6, 1), (20, 8, 6, 4), (20, 3, 8, 6), (20, 1, 8, 6, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"demo.zarr: 'img' has shape \(20, .*\), expected images \(N, H, W, 3\)"):
        _load(np.zeros(shape, np.uint8))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="'img' is of type complex64, expected uint8"):
        _load(_images(np.complex64))
