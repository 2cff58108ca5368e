import os
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch

from diffusion_policy.common.checkpoint_file import CheckpointError, link_checkpoint, read_checkpoint, write_checkpoint
from diffusion_policy.common.checkpoint_hash import (
    COMMENT_SIZE,
    MARK,
    PIECE,
    ContentHashError,
    HashedFile,
    content_hash,
    verify_content,
)

PAYLOAD = {"state_dicts": {"model": {"w": torch.arange(1000.0)}}, "values": {"epoch": 3}}
WRITE = """
import sys, torch
from diffusion_policy.common.checkpoint_file import write_checkpoint
write_checkpoint(sys.argv[1], {"state_dicts": {"model": {"w": torch.arange(1000.0)}}, "values": {"epoch": 3}})
"""


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "a.ckpt", PAYLOAD)
    return tmp_path / "a.ckpt"


def test_equal_states_make_equal_files_whatever_name_and_process(path, tmp_path):
    other = tmp_path / "another name of other length.ckpt"
    subprocess.run([sys.executable, "-c", WRITE, str(other)], check=True, timeout=120)
    assert other.read_bytes() == path.read_bytes()
    assert content_hash(other) == content_hash(path)


def test_a_state_read_back_makes_the_same_file(tmp_path):
    """Equal texts that are one object in one state and two in another, parts that two names share, versions."""
    name = "".join(["epo", "ch"])
    state = OrderedDict(w=torch.eye(3).T, v=torch.ones(2))
    state._metadata = {"": {"version": 2}}
    state["shared"] = state["w"].detach()
    payload = {"values": {"epoch": 1, "by": [name, "epoch"]}, "state_dicts": {"a": state, "b": (1, 2.5, None, (), {})}}
    write_checkpoint(tmp_path / "1.ckpt", payload)
    read = read_checkpoint(tmp_path / "1.ckpt")
    assert read["state_dicts"]["a"]._metadata == state._metadata
    del read["format"]
    write_checkpoint(tmp_path / "2.ckpt", read)
    assert (tmp_path / "1.ckpt").read_bytes() == (tmp_path / "2.ckpt").read_bytes()


def test_other_states_have_other_hashes(path, tmp_path):
    changed = {**PAYLOAD, "values": {"epoch": 4}}
    write_checkpoint(tmp_path / "b.ckpt", changed)
    assert content_hash(tmp_path / "b.ckpt") != content_hash(path)


def test_readers_of_zip_and_torch_pass_over_the_hash(path):
    assert zipfile.ZipFile(path).comment == MARK + content_hash(path).encode()
    for mmap in (False, True):
        assert torch.load(path, weights_only=True, mmap=mmap)["values"] == {"epoch": 3}


def test_every_changed_byte_is_noticed(path):
    data = path.read_bytes()
    places = random.Random(0).sample(range(len(data)), 400) + list(range(len(data) - COMMENT_SIZE - 22, len(data)))
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(ContentHashError):
            verify_content(path)
    path.write_bytes(data)
    assert verify_content(path)


@pytest.mark.parametrize("n_bytes", [0, 1, 20, COMMENT_SIZE, COMMENT_SIZE + 22, COMMENT_SIZE + 23, 1000])
def test_a_file_cut_short_is_not_taken_for_a_sound_one(path, n_bytes):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - n_bytes] if n_bytes else b"")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_files_of_earlier_versions_have_no_hash_and_still_load(path, tmp_path):
    payload = read_checkpoint(path)
    torch.save(payload, tmp_path / "old.ckpt")
    assert verify_content(tmp_path / "old.ckpt") is False
    assert read_checkpoint(tmp_path / "old.ckpt")["values"] == {"epoch": 3}


@pytest.mark.parametrize("size", [2, 3, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_hash_while_writing_is_the_hash_while_reading(tmp_path, size):
    """In chunks of any size, also such that split the end record that the comment's length is written into."""
    data = os.urandom(size) + b"PK\5\6" + bytes(18)
    path = tmp_path / "data"
    with path.open("wb") as file:
        hashed = HashedFile(file)
        start, chunks = 0, random.Random(size)
        while start < len(data):
            step = chunks.choice([1, 2, 3, 100_000])
            assert hashed.write(memoryview(data)[start : start + step]) == len(data[start : start + step])
            start += step
        hashed.finish()
    assert path.read_bytes()[:-COMMENT_SIZE] == data[:-2] + COMMENT_SIZE.to_bytes(2, "little")
    assert verify_content(path)


def test_a_second_name_is_the_same_file_where_links_are_and_a_copy_elsewhere(path, tmp_path, monkeypatch):
    link_checkpoint(path, tmp_path / "link.ckpt")
    assert (tmp_path / "link.ckpt").samefile(path)

    def refuse(*_):
        raise OSError("links are not supported")

    monkeypatch.setattr(os, "link", refuse)
    link_checkpoint(path, tmp_path / "copy.ckpt")
    assert not (tmp_path / "copy.ckpt").samefile(path)
    assert verify_content(tmp_path / "copy.ckpt")
