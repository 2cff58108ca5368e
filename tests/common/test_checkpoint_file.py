import os
import subprocess
import sys
import zipfile

import pytest
import torch

from diffusion_policy.common.checkpoint_file import (
    CheckpointError,
    link_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

PAYLOAD = {"state_dicts": {"model": {"w": torch.arange(1000.0)}}, "values": {"epoch": 3, "name": "a", "none": None}}


def test_reads_back_what_was_written_without_pickled_code(tmp_path):
    path = tmp_path / "deep" / "a.ckpt"
    write_checkpoint(path, PAYLOAD)
    assert torch.load(path, weights_only=True)["values"]["epoch"] == 3
    payload = read_checkpoint(path)
    assert torch.equal(payload["state_dicts"]["model"]["w"], PAYLOAD["state_dicts"]["model"]["w"])
    assert payload["values"] == PAYLOAD["values"]
    assert [each.name for each in path.parent.iterdir()] == ["a.ckpt"]


def test_link_outlives_the_source(tmp_path):
    write_checkpoint(tmp_path / "latest.ckpt", PAYLOAD)
    link_checkpoint(tmp_path / "latest.ckpt", tmp_path / "best.ckpt")
    write_checkpoint(tmp_path / "latest.ckpt", {"values": {"epoch": 4}})
    assert read_checkpoint(tmp_path / "best.ckpt")["values"]["epoch"] == 3
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best.ckpt", "latest.ckpt"]


def test_missing_file_names_its_neighbours(tmp_path):
    write_checkpoint(tmp_path / "epoch=0001.ckpt", PAYLOAD)
    with pytest.raises(FileNotFoundError, match=r"latest\.ckpt; in its folder: epoch=0001\.ckpt"):
        read_checkpoint(tmp_path / "latest.ckpt")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, PAYLOAD)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r"truncated or not a checkpoint|damaged: its end"):
        read_checkpoint(path)


def test_flipped_bits_are_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, PAYLOAD)
    with zipfile.ZipFile(path) as archive:
        tensor = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    data[tensor.header_offset + 500] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


class _Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize("content", [_Attack(), {"values": _Attack()}, [1, 2], {"format": "other/1"}])
def test_code_and_foreign_files_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"plain tensors|not a checkpoint written"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "attacked").exists()


def test_full_disk_is_one_clear_error_and_keeps_the_old_file(tmp_path):
    """A file-size limit makes the write fail in the middle, as a full disk does."""
    path = tmp_path / "latest.ckpt"
    write_checkpoint(path, PAYLOAD)
    program = (
        "import resource, signal, sys, torch\n"
        "from diffusion_policy.common.checkpoint_file import CheckpointError, write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    write_checkpoint(sys.argv[1], {'w': torch.zeros(1_000_000)})\n"
        "except CheckpointError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "refused: could not save the checkpoint" in done.stderr
    assert "the earlier checkpoint there is intact" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["latest.ckpt"]
    assert read_checkpoint(path)["values"]["epoch"] == 3


def test_the_content_hash_covers_what_no_checksum_does(tmp_path):
    path = tmp_path / "latest.ckpt"
    write_checkpoint(path, PAYLOAD)
    content = bytearray(path.read_bytes())
    content[content.index(b"ZZZZ")] ^= 1  # what torch pads records with
    path.write_bytes(content)
    assert read_checkpoint(path)["values"]["epoch"] == 3
    with pytest.raises(CheckpointError, match="the content hash differs"):
        read_checkpoint(path, verify_hash=True)
