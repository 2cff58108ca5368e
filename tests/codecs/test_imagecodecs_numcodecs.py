import json
import logging
import subprocess
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from imagecodecs import numcodecs as library
from numcodecs.registry import codec_registry

from diffusion_policy.codecs import imagecodecs_numcodecs as codecs
from diffusion_policy.codecs.imagecodecs_numcodecs import Jpeg2k, register_codecs
from diffusion_policy.common.replay_buffer import ReplayBuffer


@pytest.fixture
def images() -> np.ndarray:
    """Smooth images, as cameras give; four of 32 x 48."""
    y, x = np.mgrid[:32, :48]
    frames = [np.stack([x * 5, y * 7, (x + y + shift) * 2], axis=-1) for shift in range(4)]
    return np.asarray(frames).astype(np.uint8)


def stored(path: Path, images: np.ndarray, codec: numcodecs.abc.Codec) -> np.ndarray:
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    buffer.add_episode({"img": images}, chunks=(1, *images.shape[1:]), compressors=codec)
    return ReplayBuffer.create_from_path(path)["img"][:]


def test_jpeg2k_config_is_that_of_published_caches(compat: Path) -> None:
    facts = json.loads((compat / "numerics" / "f_replay_buffer.json").read_text())
    config = facts["jpeg2k_level50_config"]
    assert Jpeg2k(level=50).get_config() == config
    register_codecs()
    assert numcodecs.get_codec(dict(config)) == Jpeg2k(level=50)


def test_newer_jpeg2k_options_are_stored_where_used() -> None:
    register_codecs()
    codec = Jpeg2k(level=50, mct=False)
    assert codec.get_config()["mct"] is False
    assert numcodecs.get_codec(codec.get_config()) == codec


def test_images_in_a_replay_buffer(tmp_path: Path, images: np.ndarray) -> None:
    register_codecs()
    np.testing.assert_array_equal(stored(tmp_path / "lossless.zarr", images, Jpeg2k()), images)
    lossy = stored(tmp_path / "lossy.zarr", images, Jpeg2k(level=50))
    error = lossy.astype(float) - images
    assert 0 < np.sqrt(np.mean(error**2)) < 255 * 10 ** (-50 / 20) * 1.2
    document = json.loads((tmp_path / "lossy.zarr" / "data" / "img" / ".zarray").read_text())
    assert document["compressor"] == Jpeg2k(level=50).get_config()
    ReplayBuffer.create_from_path(tmp_path / "lossy.zarr").save_to_path(tmp_path / "again.zarr.zip")
    np.testing.assert_array_equal(ReplayBuffer.copy_from_path(tmp_path / "again.zarr.zip")["img"], lossy)


@pytest.mark.parametrize("name", sorted(set(codecs.__all__) - {"register_codecs"}))
def test_every_codec_stores_images(tmp_path: Path, images: np.ndarray, name: str) -> None:
    register_codecs()
    decoded = stored(tmp_path / "a.zarr", images, getattr(codecs, name)())
    assert decoded.shape == images.shape
    assert np.abs(decoded.astype(int) - images).mean() < 8


def test_opening_without_registering_says_what_to_do(tmp_path: Path, images: np.ndarray) -> None:
    register_codecs()
    stored(tmp_path / "a.zarr", images, Jpeg2k())
    script = (
        "import sys; from diffusion_policy.common.replay_buffer import ReplayBuffer\n"
        "ReplayBuffer.create_from_path(sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", script, tmp_path / "a.zarr"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "imagecodecs_jpeg2k" in result.stderr
    assert "register_codecs()" in result.stderr.splitlines()[-1]


class TestRegister:
    @pytest.fixture(autouse=True)
    def _restored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for codec_id in ("imagecodecs_jpeg2k", "imagecodecs_png"):
            monkeypatch.delitem(codec_registry, codec_id, raising=False)

    def test_chosen_ones(self) -> None:
        register_codecs(["imagecodecs_png"])
        assert codec_registry["imagecodecs_png"] is library.Png
        assert "imagecodecs_jpeg2k" not in codec_registry
        with pytest.raises(ValueError, match=r"unknown codecs \['jpeg'\]: give ids out of"):
            register_codecs(["jpeg"])

    def test_takes_the_place_of_the_librarys_jpeg2k(self) -> None:
        numcodecs.register_codec(library.Jpeg2k)
        register_codecs()
        assert codec_registry["imagecodecs_jpeg2k"] is Jpeg2k

    def test_foreign_classes_are_kept_unless_forced(self, caplog: pytest.LogCaptureFixture) -> None:
        class Foreign(numcodecs.abc.Codec):
            codec_id = "imagecodecs_png"

        numcodecs.register_codec(Foreign)
        with caplog.at_level(logging.WARNING):
            register_codecs(verbose=False)
            assert caplog.text == ""
            register_codecs()
        assert "imagecodecs_png is already registered" in caplog.text
        assert codec_registry["imagecodecs_png"] is Foreign
        register_codecs(force=True)
        assert codec_registry["imagecodecs_png"] is library.Png
