import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from diffusion_policy.common.replay_buffer import ReplayBuffer

LENGTHS = (5, 8, 4)


@pytest.fixture(scope="module")
def facts(compat: Path) -> dict[str, Any]:
    return json.loads((compat / "numerics" / "f_replay_buffer.json").read_text())


@pytest.fixture(scope="module")
def episodes() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "obs": rng.random((n, 3), dtype=np.float32),
            "img": rng.integers(0, 255, (n, 4, 4, 3), dtype=np.uint8),
            "action": rng.random((n, 2), dtype=np.float32),
        }
        for n in LENGTHS
    ]


def filled(buffer: ReplayBuffer, episodes: list[dict[str, np.ndarray]], **kwargs: Any) -> ReplayBuffer:
    for episode in episodes:
        buffer.add_episode(episode, **kwargs)
    return buffer


def assert_holds(buffer: ReplayBuffer, episodes: list[dict[str, np.ndarray]]) -> None:
    assert buffer.n_episodes == len(episodes)
    assert buffer.episode_lengths.tolist() == [len(episode["obs"]) for episode in episodes]
    for index, episode in enumerate(episodes):
        got = buffer.get_episode(index)
        assert got.keys() == episode.keys()
        for key, value in episode.items():
            np.testing.assert_array_equal(got[key], value)
            assert got[key].dtype == value.dtype


def metadata(folder: Path, names: dict[str, Any]) -> dict[str, Any]:
    """Documents of a zarr on disk; '.' between chunk indices may be stated or left to be the default."""
    documents = {name: json.loads((folder / name).read_text()) for name in names}
    for name, document in documents.items():
        if "dimension_separator" not in names[name]:
            assert document.pop("dimension_separator", ".") == "."
    return documents


@pytest.fixture(params=["numpy", "memory", "folder", "zip"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path, episodes: list[Any]) -> ReplayBuffer:
    """The same three episodes on every back end."""
    if request.param == "numpy":
        return filled(ReplayBuffer.create_empty_numpy(), episodes)
    if request.param == "memory":
        return filled(ReplayBuffer.create_empty_zarr(zarr.storage.MemoryStore()), episodes)
    folder = filled(ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a"), episodes)
    if request.param == "folder":
        return folder
    folder.save_to_path(tmp_path / "a.zarr.zip")
    return ReplayBuffer.create_from_path(tmp_path / "a.zarr.zip")


class TestMetadata:
    def test_appended_on_disk(self, tmp_path: Path, episodes: list[Any], facts: dict[str, Any]) -> None:
        buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
        filled(buffer, episodes, compressors="disk")
        expected = facts["on_disk_append_compressors_disk"]
        assert metadata(tmp_path / "a.zarr", expected) == expected
        props = facts["on_disk_append_props"]
        assert buffer.chunk_size == props["chunk_size"]
        assert {key: list(chunks) for key, chunks in buffer.get_chunks().items()} == props["chunks"]
        configs = {key: codec.get_config() for key, codec in buffer.get_compressors().items()}
        assert configs == props["compressors"]

    def test_saved_from_numpy(self, tmp_path: Path, episodes: list[Any], facts: dict[str, Any]) -> None:
        filled(ReplayBuffer.create_empty_numpy(), episodes).save_to_path(tmp_path / "a.zarr", chunk_length=-1)
        expected = facts["numpy_save_to_path_default"]
        assert metadata(tmp_path / "a.zarr", expected) == expected

    def test_plain_zarr_reads_it_as_format_2(self, tmp_path: Path, episodes: list[Any]) -> None:
        filled(ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a"), episodes)
        root = zarr.open_group(tmp_path / "a.zarr", mode="r", zarr_format=2)
        np.testing.assert_array_equal(root["meta/episode_ends"][:], np.cumsum(LENGTHS))
        np.testing.assert_array_equal(root["data/obs"][:], np.concatenate([e["obs"] for e in episodes]))
        assert not list((tmp_path / "a.zarr").rglob("zarr.json"))

    def test_many_appended_ends_stay_few_chunks(self, tmp_path: Path) -> None:
        buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
        for index in range(20):
            buffer.add_episode({"a": np.full((2, 1), index)})
        ends = zarr.open_array(tmp_path / "a.zarr" / "meta" / "episode_ends", mode="r")
        np.testing.assert_array_equal(ends[:], np.arange(2, 42, 2))
        assert ends.nchunks == 1


class TestReading:
    def test_episodes(self, buffer: ReplayBuffer, episodes: list[Any]) -> None:
        assert_holds(buffer, episodes)
        assert buffer.n_steps == 17
        assert buffer.episode_ends.tolist() == [5, 13, 17]
        assert buffer.backend == ("numpy" if isinstance(buffer.root, dict) else "zarr")
        assert sorted(buffer.keys()) == ["action", "img", "obs"]
        assert [value.shape for _, value in sorted(buffer.items())] == [(17, 2), (17, 4, 4, 3), (17, 3)]
        assert len(buffer.values()) == 3
        assert "obs" in buffer
        assert "nope" not in buffer
        assert "3 episodes" in repr(buffer)

    def test_slices(self, buffer: ReplayBuffer, episodes: list[Any]) -> None:
        assert buffer.get_episode_slice(1) == slice(5, 13)
        np.testing.assert_array_equal(buffer.get_episode(-1)["obs"], episodes[2]["obs"])
        steps = buffer.get_steps_slice(3, 9, 2)
        np.testing.assert_array_equal(steps["obs"], buffer["obs"][:][3:9:2])
        assert buffer.get_episode_idxs().tolist() == [0] * 5 + [1] * 8 + [2] * 4
        for index in (3, -4):
            with pytest.raises(IndexError, match="the buffer has 3"):
                buffer.get_episode(index)

    def test_numpy_gives_views_unless_a_copy_is_asked_for(self, episodes: list[Any]) -> None:
        buffer = filled(ReplayBuffer.create_empty_numpy(), episodes)
        assert np.shares_memory(buffer.get_episode(0)["obs"], buffer["obs"])
        assert not np.shares_memory(buffer.get_episode(0, copy=True)["obs"], buffer["obs"])
        assert buffer.chunk_size is None

    def test_missing_key_names_those_there_are(self, buffer: ReplayBuffer) -> None:
        with pytest.raises(KeyError, match=r"no array 'nope' in .* has \[.*'img'.*\]"):
            buffer["nope"]

    def test_read_mode_never_modifies_the_files(self, tmp_path: Path, episodes: list[Any]) -> None:
        filled(ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a"), episodes)
        before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
        reader = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="r")
        assert_holds(reader, episodes)
        for change in (
            lambda: reader.add_episode(episodes[0]),
            reader.drop_episode,
            lambda: reader.update_meta({"foo": 1}),
            lambda: reader.set_chunks({"obs": (2, 3)}),
        ):
            with pytest.raises(ValueError, match=r"read[- ]only"):
                change()
        assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}

    def test_real_dataset(self, real_pusht: Path) -> None:
        opened = ReplayBuffer.create_from_path(real_pusht)
        assert (opened.n_episodes, opened.n_steps) == (206, 25650)
        assert opened["img"].shape == (25650, 96, 96, 3)
        copied = ReplayBuffer.copy_from_path(real_pusht, keys=["state", "action"])
        assert copied.backend == "numpy"
        assert list(copied.keys()) == ["state", "action"]
        np.testing.assert_array_equal(copied.get_episode(17)["state"], opened.get_episode(17)["state"])


class TestCopying:
    def test_to_memory_and_back(self, buffer: ReplayBuffer, tmp_path: Path, episodes: list[Any]) -> None:
        for name in ("b.zarr", "b.zarr.zip"):
            assert buffer.save_to_path(tmp_path / name) == tmp_path / name
            assert_holds(ReplayBuffer.create_from_path(tmp_path / name), episodes)
            copied = ReplayBuffer.copy_from_path(tmp_path / name)
            assert copied.backend == "numpy"
            assert_holds(copied, episodes)
        store = zarr.storage.MemoryStore()
        assert buffer.save_to_store(store) is store
        assert_holds(ReplayBuffer.copy_from_store(store), episodes)
        assert_holds(ReplayBuffer.copy_from_store(store, store={}), episodes)

    def test_keys_and_encoding(self, tmp_path: Path, episodes: list[Any], facts: dict[str, Any]) -> None:
        path = tmp_path / "a.zarr"
        source = ReplayBuffer.create_from_path(path, mode="a")
        filled(source, episodes, compressors="disk")
        some = ReplayBuffer.copy_from_path(path, backend="numpy", store=tmp_path / "unused", keys=["obs"])
        assert list(some.keys()) == facts["copy_from_path_keys"]["keys"]
        assert some.backend == "numpy"
        expected = facts["copy_from_path_store_rechunk"]
        copied = ReplayBuffer.copy_from_path(
            path, store=zarr.storage.MemoryStore(), chunks={"obs": (4, 3)}, compressors={"obs": None}
        )
        assert list(copied.get_chunks()["obs"]) == expected["obs_chunks"]
        assert copied.get_compressors()["obs"] is None
        assert copied.get_compressors()["img"].get_config() == expected["img_compressor"]
        assert_holds(copied, episodes)

    def test_same_encoding_copies_chunks_byte_for_byte(self, tmp_path: Path, episodes: list[Any]) -> None:
        source = filled(ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a"), episodes)
        source.save_to_path(tmp_path / "b.zarr")
        for chunk in (tmp_path / "a.zarr" / "data" / "img").iterdir():
            assert (tmp_path / "b.zarr" / "data" / "img" / chunk.name).read_bytes() == chunk.read_bytes()

    def test_one_choice_for_all_keys(self, tmp_path: Path) -> None:
        buffer = filled(ReplayBuffer.create_empty_numpy(), [{"a": np.zeros((9, 2)), "b": np.ones((9, 2))}])
        buffer.save_to_path(tmp_path / "a.zarr", chunks=(3, 2), compressors="disk")
        saved = ReplayBuffer.create_from_path(tmp_path / "a.zarr")
        assert saved.get_chunks() == {"a": (3, 2), "b": (3, 2)}
        disk = ReplayBuffer.resolve_compressor("disk")
        assert saved.get_compressors() == {"a": disk, "b": disk}

    def test_copy_to_a_folder_can_be_appended_to(self, tmp_path: Path, episodes: list[Any]) -> None:
        filled(ReplayBuffer.create_empty_numpy(), episodes[:2]).save_to_path(tmp_path / "a.zarr.zip")
        copied = ReplayBuffer.copy_from_path(tmp_path / "a.zarr.zip", store=tmp_path / "b.zarr")
        copied.add_episode(episodes[2])
        assert_holds(ReplayBuffer.create_from_path(tmp_path / "b.zarr"), episodes)

    def test_resolve_compressor(self, facts: dict[str, Any]) -> None:
        for name, config in facts["resolve_compressor"].items():
            assert ReplayBuffer.resolve_compressor(name).get_config() == config
        codec = Blosc("zstd")
        assert ReplayBuffer.resolve_compressor(codec) is codec
        assert ReplayBuffer.resolve_compressor(None) is None
        with pytest.raises(ValueError, match="'default', 'disk'"):
            ReplayBuffer.resolve_compressor("small")


class TestChanging:
    @pytest.fixture(params=["numpy", "memory", "folder"])
    def empty(self, request: pytest.FixtureRequest, tmp_path: Path) -> ReplayBuffer:
        if request.param == "numpy":
            return ReplayBuffer.create_empty_numpy()
        if request.param == "memory":
            return ReplayBuffer.create_empty_zarr()
        return ReplayBuffer.create_empty_zarr(storage=tmp_path / "a.zarr")

    def test_empty(self, empty: ReplayBuffer) -> None:
        assert (empty.n_steps, empty.n_episodes, list(empty.keys())) == (0, 0, [])
        assert empty.chunk_size is None
        for remove in (empty.drop_episode, empty.pop_episode):
            with pytest.raises(IndexError, match="the buffer has 0"):
                remove()

    def test_pop_and_drop_then_append_again(self, empty: ReplayBuffer, episodes: list[Any]) -> None:
        buffer = filled(empty, episodes)
        popped = buffer.pop_episode()
        np.testing.assert_array_equal(popped["img"], episodes[2]["img"])
        assert_holds(buffer, episodes[:2])
        buffer.drop_episode()
        assert_holds(buffer, episodes[:1])
        assert buffer["obs"].shape == (5, 3)
        buffer.extend(episodes[2])
        buffer.extend(episodes[1])
        assert_holds(buffer, [episodes[0], episodes[2], episodes[1]])
        np.testing.assert_array_equal(popped["img"], episodes[2]["img"])

    def test_all_dropped_then_other_keys(self, empty: ReplayBuffer, episodes: list[Any]) -> None:
        filled(empty, episodes[:1]).drop_episode()
        empty.add_episode({"other": np.arange(3)})
        assert list(empty.keys()) == ["other"]
        np.testing.assert_array_equal(empty["other"][:], np.arange(3))

    def test_lists_and_safely_cast_dtypes_are_taken(self, empty: ReplayBuffer) -> None:
        empty.add_episode({"a": np.zeros((2,), dtype=np.float64)})
        empty.add_episode({"a": np.ones((1,), dtype=np.float32)})
        empty.add_episode({"a": [2.0, 3.0]})
        assert empty["a"][:].tolist() == [0, 0, 1, 2, 3]
        assert empty["a"].dtype == np.float64

    def test_update_meta(self, empty: ReplayBuffer, facts: dict[str, Any]) -> None:
        for value in ([1], [1, 2, 3]):
            returned = empty.update_meta({"foo": value})
            assert returned["foo"].dtype.name == facts["update_meta"]["foo_dtype"]
            np.testing.assert_array_equal(empty.meta["foo"][:], value)
        assert sorted(empty.meta) == facts["update_meta"]["meta_keys"]
        empty.update_meta({"scalar": 2.5})
        assert empty.meta["scalar"][()] == 2.5
        with pytest.raises(ValueError, match="'bad'"):
            empty.update_meta({"bad": object()})
        with pytest.raises(ValueError, match="use add_episode and drop_episode"):
            empty.update_meta({"episode_ends": [3]})

    def test_set_chunks_and_compressors(self, tmp_path: Path, episodes: list[Any], facts: Any) -> None:
        buffer = filled(ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a"), episodes)
        buffer.set_chunks({"obs": (2, 3)})
        buffer.set_compressors({"obs": "default", "img": "disk", "action": None})
        assert list(buffer.get_chunks()["obs"]) == facts["set"]["chunks"]
        assert buffer.get_compressors()["obs"].get_config() == facts["set"]["compressor"]
        assert buffer.get_compressors()["img"] == ReplayBuffer.resolve_compressor("disk")
        assert buffer.get_compressors()["action"] is None
        assert_holds(ReplayBuffer.create_from_path(tmp_path / "a.zarr"), episodes)
        with pytest.raises(ValueError, match="do not fit"):
            buffer.set_chunks({"obs": (2,)})
        with pytest.raises(KeyError, match=r"no arrays \['nope'\]"):
            buffer.set_compressors({"nope": "disk"})
        with pytest.raises(ValueError, match="only zarr"):
            ReplayBuffer.create_empty_numpy().set_chunks({"obs": (2, 3)})
