import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import numpy as np
import pytest
from s3_server import s3_server
from zarr.storage import FsspecStore

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_store import open_group

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3)).astype(np.uint8)


def _buffer():
    return ReplayBuffer({"data": {"img": IMAGES}, "meta": {"episode_ends": np.array([10, 30])}})


@pytest.fixture
def folder(tmp_path):
    """Of buckets, or of what a web server offers."""
    _buffer().save_to_path(tmp_path / "bucket" / "demos.zarr", chunks={"img": (8, 4, 4, 3)})
    return tmp_path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(params=["memory", "file", "http", "s3"])
def url(request, folder):
    if request.param == "memory":
        _buffer().save_to_store(FsspecStore.from_url(f"memory://{folder.name}/demos.zarr"))
        yield f"memory://{folder.name}/demos.zarr"
        fsspec.filesystem("memory").rm(f"/{folder.name}", recursive=True)
    elif request.param == "file":
        yield f"file://{folder}/bucket/demos.zarr"
    elif request.param == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/bucket/demos.zarr"
        server.shutdown()
        server.server_close()
    else:
        with s3_server(folder):
            yield "s3://bucket/demos.zarr"


def test_a_replay_buffer_is_read_from_a_url(url):
    for buffer in (ReplayBuffer.create_from_path(url), ReplayBuffer.copy_from_path(url)):
        assert buffer.episode_ends.tolist() == [10, 30]
        np.testing.assert_array_equal(buffer.get_episode(1)["img"], IMAGES[10:])
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*absent.zarr"):
        open_group(url.replace("demos", "absent"))


@pytest.mark.parametrize(
    ("url", "mode", "error", "message"),
    [
        ("s3://bucket/demos.zarr", "a", ValueError, "can only be read .* upload that"),
        ("s3://bucket/demos.zarr.zip", "r", ValueError, "is a zip file, .* unpack it there .*, or download it"),
        ("nowhere://bucket/demos.zarr", "r", ValueError, "nowhere://.* spelled like s3://bucket/demos.zarr"),
        ("gcs://bucket/demos.zarr", "r", ModuleNotFoundError, r"gcsfs.*pip install 'diffusion_policy\[remote\]'"),
    ],
)
def test_what_cannot_be_opened_is_explained(url, mode, error, message):
    with pytest.raises(error, match=message):
        open_group(url, mode)


def test_what_is_not_installed_is_named(monkeypatch):
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"fsspec.*pip install 'diffusion_policy\[remote\]'"):
        open_group("s3://bucket/demos.zarr")


def test_nothing_is_written_to_a_url():
    with pytest.raises(ValueError, match=r"cannot write to s3://bucket/new.zarr: write a folder and upload that"):
        _buffer().save_to_path("s3://bucket/new.zarr")
