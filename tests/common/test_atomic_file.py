import pytest

from diffusion_policy.common.atomic_file import atomic_path, remove_leftovers


def test_a_failed_block_keeps_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def fail():
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    with atomic_path(tmp_path / "latest.ckpt") as temporary:
        temporary.write_text("new")
        leftover = tmp_path / temporary.name.replace(temporary.name.split(".")[-2], "12345")
        leftover.write_text("half")
    others = ["latest.ckpt", ".hidden.tmp", "notes.1.tmp"]
    for name in others[1:]:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == [leftover]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    assert remove_leftovers(tmp_path / "absent") == []
