import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.zarr_store import open_group, write_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.add_episode({"a": np.arange(1000.0)}, compressors=None)
    return tmp_path / "a.zarr"


@pytest.fixture
def zipped(folder: Path) -> Path:
    path = folder.with_name("a.zarr.zip")
    ReplayBuffer.create_from_path(folder).save_to_path(path)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


READERS: list[Callable[[Path], ReplayBuffer]] = [
    ReplayBuffer.create_from_path,
    ReplayBuffer.copy_from_path,
    lambda path: ReplayBuffer.create_from_path(path, mode="r+"),
]


@pytest.mark.parametrize("read", READERS)
class TestNotADataset:
    def test_missing(self, read: Callable[[Path], ReplayBuffer], tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no dataset at .*nope.*: give the path of a \.zarr folder"):
            read(tmp_path / "nope.zarr")
        assert list(tmp_path.iterdir()) == []

    def test_empty_folder(self, read: Callable[[Path], ReplayBuffer], tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"is an empty folder: give the path of a \.zarr folder"):
            read(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_folder_around_a_zarr(self, read: Callable[[Path], ReplayBuffer], folder: Path) -> None:
        with pytest.raises(ValueError, match=r"not a zarr folder .*did you mean a\.zarr inside it\?"):
            read(folder.parent)

    def test_other_file(self, read: Callable[[Path], ReplayBuffer], tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(ValueError, match="not a readable zip file"):
            read(tmp_path / "notes.txt")

    def test_truncated_zip(self, read: Callable[[Path], ReplayBuffer], zipped: Path) -> None:
        zipped.write_bytes(zipped.read_bytes()[:-500])
        with pytest.raises(ValueError, match=r"cut short or damaged: fetch or write it again"):
            read(zipped)

    def test_zip_with_the_zarr_in_a_folder(
        self, read: Callable[[Path], ReplayBuffer], folder: Path, tmp_path: Path
    ) -> None:
        shutil.make_archive(str(tmp_path / "b"), "zip", root_dir=tmp_path, base_dir="a.zarr")
        with pytest.raises(ValueError, match=r"no zarr at its root .*did you mean a\.zarr inside it\?"):
            read(tmp_path / "b.zip")


def test_damaged_chunk_in_a_zip(zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    content[content.index(np.arange(1000.0).tobytes()) + 100] ^= 255
    zipped.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read array data/a of .*fetch or convert it again"):
        ReplayBuffer.copy_from_path(zipped)


def test_damaged_chunk_in_a_folder(folder: Path) -> None:
    (folder / "data" / "a" / "0").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"cannot read array data/a of .*fetch or convert it again"):
        ReplayBuffer.copy_from_path(folder)


def test_zip_cannot_be_appended_to(zipped: Path, tmp_path: Path) -> None:
    before = zipped.read_bytes()
    for mode in ("r+", "a"):
        with pytest.raises(ValueError, match=r"copy it into a folder with ReplayBuffer\.copy_from_path"):
            ReplayBuffer.create_from_path(zipped, mode=mode)
    for path in (zipped, tmp_path / "new.zarr.zip"):
        with pytest.raises(ValueError, match="can only be written whole"):
            ReplayBuffer.create_from_path(path, mode="w")
    assert zipped.read_bytes() == before


def test_modes_that_create(tmp_path: Path, folder: Path) -> None:
    assert ReplayBuffer.create_from_path(tmp_path / "sub" / "new.zarr", mode="a").n_episodes == 0
    assert ReplayBuffer.create_from_path(folder, mode="a").n_episodes == 1
    with pytest.raises(FileExistsError, match="choose another path"):
        ReplayBuffer.create_from_path(folder, mode="w-")
    assert ReplayBuffer.create_from_path(folder, mode="w").n_episodes == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FileExistsError, match="so it stays"):
        ReplayBuffer.create_from_path(tmp_path / "photos", mode="w")
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["b.zarr", "b.zarr.zip"])
class TestWritePath:
    def test_if_exists(self, name: str, folder: Path, tmp_path: Path) -> None:
        old = ReplayBuffer.create_from_path(folder)
        new = ReplayBuffer.create_empty_numpy()
        new.add_episode({"b": np.ones(3)})
        path = tmp_path / name
        old.save_to_path(path)
        new.save_to_path(path, if_exists="skip")
        assert list(ReplayBuffer.create_from_path(path).keys()) == ["a"]
        with pytest.raises(FileExistsError, match="if_exists='replace'"):
            new.save_to_path(path, if_exists="raise")
        new.save_to_path(path)
        assert list(ReplayBuffer.create_from_path(path).keys()) == ["b"]
        assert sorted(os.listdir(tmp_path)) == ["a.zarr", name]

    def test_a_failure_leaves_what_was_there(self, name: str, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / name
        ReplayBuffer.create_from_path(folder).save_to_path(path)
        before = everything(tmp_path)

        def fail(root: zarr.Group) -> None:
            root.create_array("a", data=np.ones(5))
            raise OSError("no space left on device")

        for target in (path, tmp_path / f"new_{name}"):
            with pytest.raises(OSError, match="no space left"):
                write_path(target, fail)
        assert everything(tmp_path) == before

    def test_never_in_place_of_something_else(self, name: str, folder: Path, tmp_path: Path) -> None:
        buffer = ReplayBuffer.create_from_path(folder)
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / name).mkdir()
        (tmp_path / "photos" / name / "cat.jpg").touch()
        with pytest.raises(FileExistsError, match="so it stays"):
            buffer.save_to_path(tmp_path / "photos" / name)
        assert os.listdir(tmp_path / "photos" / name) == ["cat.jpg"]

    def test_onto_itself(self, name: str, folder: Path, tmp_path: Path) -> None:
        ReplayBuffer.create_from_path(folder).save_to_path(tmp_path / name)
        buffer = ReplayBuffer.create_from_path(tmp_path / name)
        buffer.save_to_path(tmp_path / name, chunks={"a": (10,)})
        again = ReplayBuffer.create_from_path(tmp_path / name)
        assert again.get_chunks() == {"a": (10,)}
        np.testing.assert_array_equal(again["a"][:], np.arange(1000.0))


def test_zip_holds_each_file_once_and_uncompressed(zipped: Path) -> None:
    with zipfile.ZipFile(zipped) as archive:
        assert len(set(archive.namelist())) == len(archive.namelist())
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_save_to_store_if_exists() -> None:
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"a": np.zeros(3)})
    store = zarr.storage.MemoryStore()
    buffer.save_to_store(store)
    buffer.add_episode({"a": np.ones(2)})
    with pytest.raises(FileExistsError, match="'a' exists"):
        buffer.save_to_store(store, if_exists="raise")
    buffer.save_to_store(store, if_exists="skip")
    assert ReplayBuffer.copy_from_store(store).n_steps == 3
    buffer.save_to_store(store)
    assert ReplayBuffer.copy_from_store(store)["a"].tolist() == [0, 0, 0, 1, 1]


def test_never_onto_itself(folder: Path) -> None:
    before = everything(folder)
    buffer = ReplayBuffer.create_from_path(folder, mode="r+")
    for store in (zarr.storage.LocalStore(folder), buffer.root.store):
        with pytest.raises(ValueError, match="onto itself: choose another store"):
            buffer.save_to_store(store)
    memory = ReplayBuffer.copy_from_store(buffer.root, store={})
    with pytest.raises(ValueError, match="onto itself"):
        memory.save_to_store(memory.root.store)
    with pytest.raises(ValueError, match="onto itself"):
        ReplayBuffer.copy_from_store(memory.root.store, store=memory.root.store)
    assert everything(folder) == before
    assert memory.n_steps == 1000


def test_a_zip_store_of_the_users_own(folder: Path, tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "b.zarr.zip", mode="w") as store:
        ReplayBuffer.create_from_path(folder).save_to_store(store)
    assert ReplayBuffer.copy_from_path(tmp_path / "b.zarr.zip").n_steps == 1000


def test_format_3_is_read_and_copied_but_not_written(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "new.zarr", mode="w", zarr_format=3)
    root.create_group("data").create_array("a", data=np.arange(4.0))
    root.create_group("meta").create_array("episode_ends", data=np.array([1, 4]))
    before = everything(tmp_path)
    assert ReplayBuffer.create_from_path(tmp_path / "new.zarr").get_episode(1)["a"].tolist() == [1, 2, 3]
    for mode in ("r+", "a"):
        with pytest.raises(ValueError, match="has zarr format 3, which is only read"):
            ReplayBuffer.create_from_path(tmp_path / "new.zarr", mode=mode)
    assert everything(tmp_path) == before
    copied = ReplayBuffer.copy_from_path(tmp_path / "new.zarr", store=tmp_path / "old.zarr")
    assert copied["a"][:].tolist() == [0, 1, 2, 3]
    assert (tmp_path / "old.zarr" / "data" / "a" / ".zarray").exists()


def test_unknown_choices(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'rw'"):
        ReplayBuffer.create_from_path(folder, mode="rw")
    for save in (ReplayBuffer.save_to_path, ReplayBuffer.save_to_store):
        with pytest.raises(ValueError, match=r"if_exists must be one of .*, got 'overwrite'"):
            save(ReplayBuffer.create_from_path(folder), folder.with_name("b.zarr"), if_exists="overwrite")


def test_other_store_arguments(folder: Path) -> None:
    memory: dict[str, object] = {}
    ReplayBuffer.create_from_path(folder).save_to_store(memory)
    assert open_group(memory)["data/a"].shape == (1000,)
    with pytest.raises(TypeError, match="zarr 3 store, a path or a dict, got int"):
        open_group(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no zarr group at the root"):
        open_group({})
