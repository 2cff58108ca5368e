import io
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.scripts.download_dataset import DATASETS, Dataset, dataset_checksum, fetch, main


class FileServer(ThreadingHTTPServer):
    """Serves one file, to be resumed with Range and If-Range; can break off in the middle."""

    content = b""
    etag: str | None = '"one"'
    ranges = True
    send_at_most: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/training/small.zip"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, start = self.server, 0
        server.requested.append(self.headers["Range"])
        if not self.path.endswith("small.zip"):
            return self.send_error(404)
        if self.headers["Range"] and server.ranges and self.headers["If-Range"] == server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(server.content):
                return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(body[: server.send_at_most])
        return None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def small_buffer(value: float = 1.0) -> ReplayBuffer:
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"action": np.full((500, 2), value, np.float32), "img": np.arange(500, dtype=np.uint8)})
    return buffer


def archive_of(folder: Path, prefix: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{prefix}/{path.relative_to(folder)}")
    return data.getvalue()


@pytest.fixture
def dataset(server: FileServer, tmp_path: Path) -> Dataset:
    """A small dataset on the server, in an archive as the published ones are."""
    small_buffer().save_to_path(tmp_path / "origin.zarr")
    server.content = archive_of(tmp_path / "origin.zarr", "small/replay.zarr")
    checksum = dataset_checksum(tmp_path / "origin.zarr")
    return Dataset(url=server.url, path="small/replay.zarr", checksum=checksum)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "data"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestChecksum:
    def test_is_of_values_only(self, tmp_path: Path) -> None:
        buffer = small_buffer()
        buffer.save_to_path(tmp_path / "a.zarr")
        expected = dataset_checksum(tmp_path / "a.zarr")
        buffer.save_to_path(tmp_path / "b.zarr.zip", chunks={"action": (7, 1)}, compressors="disk")
        assert dataset_checksum(tmp_path / "b.zarr.zip") == expected
        wider = ReplayBuffer.create_empty_numpy()
        wider.add_episode({key: value.astype(np.float64) for key, value in buffer.items()})
        wider.save_to_path(tmp_path / "c.zarr")
        assert dataset_checksum(tmp_path / "c.zarr") == expected

    def test_sees_every_difference(self, tmp_path: Path) -> None:
        variants = [small_buffer() for _ in range(4)]
        variants[1]["action"][123, 1] += 1e-6
        variants[2].meta["episode_ends"] = np.array([200, 500])
        variants[3].data["other"] = variants[3].data.pop("action")
        for number, buffer in enumerate(variants):
            buffer.save_to_path(tmp_path / f"{number}.zarr")
        assert len({dataset_checksum(tmp_path / f"{number}.zarr") for number in range(4)}) == 4


class TestFetch:
    def test_unpacks_and_keeps_what_is_there(self, dataset: Dataset, server: FileServer, output: Path) -> None:
        target = fetch(dataset, output)
        assert target == output / "small" / "replay.zarr"
        assert ReplayBuffer.create_from_path(target).n_steps == 500
        assert entries(output) == ["small"]
        assert fetch(dataset, output) == target
        assert server.requested == [None]

    def test_resumes_where_it_broke_off(self, dataset: Dataset, server: FileServer, output: Path) -> None:
        server.send_at_most = 700
        for received in (700, 1400):
            with pytest.raises(OSError, match=rf"got {received} of {len(server.content)} bytes .*again to continue"):
                fetch(dataset, output)
            assert not (output / "small").exists()
        server.send_at_most = None
        fetch(dataset, output)
        assert server.requested == [None, "bytes=700-", "bytes=1400-"]
        assert entries(output) == ["small"]

    @pytest.mark.parametrize("change", ["content", "no ranges", "no tag"])
    def test_starts_over_where_it_cannot_resume(
        self, dataset: Dataset, server: FileServer, output: Path, change: str
    ) -> None:
        original, server.send_at_most = server.content, 700
        if change == "content":
            server.content, server.etag = b"x" * 5000, '"old"'
        elif change == "no ranges":
            server.ranges = False
        else:
            server.etag = None
        with pytest.raises(OSError, match="run again to continue"):
            fetch(dataset, output)
        server.content, server.send_at_most = original, None
        server.etag = '"one"' if change == "content" else server.etag
        fetch(dataset, output)
        assert server.requested[1] == (None if change == "no tag" else "bytes=700-")

    def test_a_complete_part_is_no_dead_end(self, dataset: Dataset, server: FileServer, output: Path) -> None:
        server.send_at_most = 700
        with pytest.raises(OSError, match="got 700"):
            fetch(dataset, output)
        server.send_at_most = None
        (part,) = output.glob("*.part")
        part.write_bytes(server.content)
        with pytest.raises(OSError, match="416"):
            fetch(dataset, output)
        fetch(dataset, output)

    def test_wrong_content(self, dataset: Dataset, server: FileServer, output: Path, tmp_path: Path) -> None:
        small_buffer(value=2.0).save_to_path(tmp_path / "other.zarr")
        server.content = archive_of(tmp_path / "other.zarr", "small/replay.zarr")
        with pytest.raises(ValueError, match=r"not the published ones \(wrong checksum\)"):
            fetch(dataset, output)
        server.content = archive_of(tmp_path / "other.zarr", "somewhere/else.zarr")
        with pytest.raises(ValueError, match=r"does not contain small/replay\.zarr: is the URL right\?"):
            fetch(dataset, output)
        server.content = b"<html>not a zip</html>"
        with pytest.raises(ValueError, match=r"is damaged .*run again to download it anew"):
            fetch(dataset, output)
        assert entries(output) == []

    def test_other_data_in_the_way_are_kept(self, dataset: Dataset, server: FileServer, output: Path) -> None:
        small_buffer(value=3.0).save_to_path(output / "small" / "replay.zarr")
        with pytest.raises(ValueError, match="move it away, then run again"):
            fetch(dataset, output)
        assert ReplayBuffer.create_from_path(output / "small" / "replay.zarr")["action"][0, 0] == 3.0
        assert server.requested == []

    @pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "small/../../evil"])
    def test_members_outside_the_folder(self, dataset: Dataset, server: FileServer, output: Path, name: str) -> None:
        data = io.BytesIO(server.content)
        with zipfile.ZipFile(data, "a") as archive:
            archive.writestr(name, "evil")
        server.content = data.getvalue()
        with pytest.raises(ValueError, match=r"is not to be trusted: it would write to '.*evil'"):
            fetch(dataset, output)
        assert not list(output.parent.rglob("*evil*"))


class TestCommand:
    def test_real_dataset(self, server: FileServer, real_pusht: Path, output: Path) -> None:
        data = io.BytesIO()
        with zipfile.ZipFile(real_pusht) as source, zipfile.ZipFile(data, "w") as archive:
            for name in source.namelist():
                archive.writestr(f"pusht/pusht_cchi_v7_replay.zarr/{name}", source.read(name))
        server.content, server.send_at_most = data.getvalue(), 20_000_000
        command = ["pusht", "--output", str(output), "--url", server.url]
        broken = CliRunner().invoke(main, command)
        assert broken.exit_code == 1
        assert broken.stderr.splitlines()[-1].startswith("Error: got 20000000 of ")
        server.send_at_most = None
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        assert server.requested == [None, "bytes=20000000-"]
        assert "pusht is at" in result.stdout
        buffer = ReplayBuffer.create_from_path(output / DATASETS["pusht"].path)
        assert (buffer.n_episodes, buffer.n_steps) == (206, 25650)

    def test_no_server(self, server: FileServer, output: Path) -> None:
        url = server.url
        server.shutdown()
        server.server_close()
        command = [sys.executable, "-m", "diffusion_policy.scripts.download_dataset", "pusht"]
        result = subprocess.run(
            [*command, "--output", str(output), "--url", url], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert re.match(rf"Error: cannot download {re.escape(url)}: .*refused.* Check the network", line)

    def test_refused_by_the_server(self, server: FileServer, output: Path) -> None:
        result = CliRunner().invoke(main, ["pusht", "--output", str(output), "--url", f"{server.url}x"])
        assert result.exit_code == 1
        assert "404" in result.stderr
        result = CliRunner().invoke(main, ["pusht", "--output", str(output), "--url", "not-a-url"])
        assert result.exit_code == 1
        assert "not-a-url" in result.stderr

    def test_help(self) -> None:
        result = CliRunner().invoke(main, ["--help"])
        assert result.exit_code == 0
        assert "Example: python -m diffusion_policy.scripts.download_dataset pusht" in result.output
        assert CliRunner().invoke(main, ["nope"]).exit_code == 2
