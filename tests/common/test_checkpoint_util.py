import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_policy.common.checkpoint_util import TopKCheckpointManager

FORMAT = "epoch={epoch:04d}-score={score:.3f}.ckpt"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def manager(folder: Path, **kwargs: Any) -> TopKCheckpointManager:
    return TopKCheckpointManager(folder, "score", **{"mode": "max", "k": 2, "format_str": FORMAT, **kwargs})


def save(topk: TopKCheckpointManager, epoch: int, score: float) -> str | None:
    with topk.saving({"epoch": epoch, "score": score}) as path:
        if path is not None:
            Path(path).touch()
    return path


@pytest.mark.parametrize("way", ["saving", "get_ckpt_path"])
def test_same_files_as_the_original(compat: Path, tmp_path: Path, way: str) -> None:
    cases = json.loads((compat / "numerics" / "misc.json").read_text())["topk"]
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        topk = TopKCheckpointManager(folder, "test_mean_score", case["mode"], case["k"], case["format_str"])
        for step in case["log"]:
            data = {"epoch": step["epoch"], "test_mean_score": step["value"]}
            if way == "saving":
                with topk.saving(data) as path:
                    if path is not None:
                        Path(path).touch()
            else:
                path = topk.get_ckpt_path(data)
                if path is not None:
                    Path(path).touch()
            assert path == (str(folder / step["returned"]) if step["returned"] else None)
            assert files(folder) == step["files"]


def test_defaults(tmp_path: Path) -> None:
    topk = TopKCheckpointManager(save_dir=str(tmp_path), monitor_key="train_loss")
    path = topk.get_ckpt_path({"train_loss": 0.25, "epoch": 3})
    assert path == str(tmp_path / "epoch=003-train_loss=0.250.ckpt")
    assert topk.get_ckpt_path({"train_loss": 0.25, "epoch": 4}) is None


def test_the_worst_stays_until_the_new_one_is_written(tmp_path: Path) -> None:
    topk = manager(tmp_path, k=1)
    first = save(topk, 0, 0.1)
    with topk.saving({"epoch": 1, "score": 0.2}) as second:
        assert Path(first).exists()
        Path(second).touch()
        assert Path(first).exists()
        inside = topk.state_dict()
    assert files(tmp_path) == [Path(second).name]
    assert inside == {Path(first).name: 0.1, Path(second).name: 0.2}


def test_a_failed_save_changes_nothing(tmp_path: Path) -> None:
    topk = manager(tmp_path)
    save(topk, 0, 0.1)
    save(topk, 1, 0.2)
    before = (files(tmp_path), topk.state_dict())

    def fail() -> None:
        with topk.saving({"epoch": 2, "score": 0.9}):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert (files(tmp_path), topk.state_dict()) == before


def test_state_continues_in_another_folder(tmp_path: Path) -> None:
    topk = manager(tmp_path / "a")
    save(topk, 0, 0.1)
    save(topk, 1, 0.3)
    state = json.loads(json.dumps(topk.state_dict()))
    (tmp_path / "a").rename(tmp_path / "b")
    resumed = manager(tmp_path / "b")
    resumed.load_state_dict(state)
    assert save(resumed, 2, 0.1) is None
    save(resumed, 3, 0.2)
    assert files(tmp_path / "b") == ["epoch=0001-score=0.300.ckpt", "epoch=0003-score=0.200.ckpt"]


def test_resume_from_any_point_of_a_save(tmp_path: Path) -> None:
    topk = manager(tmp_path)
    save(topk, 0, 0.1)
    save(topk, 1, 0.3)
    with topk.saving({"epoch": 2, "score": 0.2}) as path:
        state = topk.state_dict()
        not_yet_written = manager(tmp_path)
        not_yet_written.load_state_dict(state)
        assert list(not_yet_written.state_dict().values()) == [0.1, 0.3]
        Path(path).touch()
        not_yet_deleted = manager(tmp_path)
        not_yet_deleted.load_state_dict(state)
    (tmp_path / "epoch=0000-score=0.100.ckpt").touch()
    assert save(not_yet_deleted, 3, 0.15) is None
    save(not_yet_deleted, 4, 0.25)
    assert files(tmp_path) == ["epoch=0001-score=0.300.ckpt", "epoch=0004-score=0.250.ckpt"]


def test_state_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    topk = manager(tmp_path / "checkpoints", k=1)
    topk.load_state_dict({"../precious": 0.0, str(tmp_path / "precious"): 0.0})
    save(topk, 0, 0.5)
    assert (tmp_path / "precious").exists()


def test_same_epoch_saved_again_after_resuming(tmp_path: Path) -> None:
    topk = manager(tmp_path)
    for epoch, score in ((0, 0.1), (1, 0.5), (1, 0.5), (1, 0.5)):
        save(topk, epoch, score)
    assert files(tmp_path) == ["epoch=0000-score=0.100.ckpt", "epoch=0001-score=0.500.ckpt"]


def test_ties_keep_the_newest(tmp_path: Path) -> None:
    for mode, better in (("max", 0.6), ("min", 0.4)):
        topk = manager(tmp_path / mode, mode=mode)
        save(topk, 0, 0.5)
        save(topk, 1, 0.5)
        assert save(topk, 2, 0.5) is None
        save(topk, 3, better)
        assert [name[:10] for name in files(tmp_path / mode)] == ["epoch=0001", "epoch=0003"]


def test_nan_is_never_among_the_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    topk = manager(tmp_path)
    assert save(topk, 0, float("nan")) is None
    assert "score is NaN" in caplog.text
    assert files(tmp_path) == []
    assert save(topk, 1, float("-inf")) is not None


def test_missing_metrics(tmp_path: Path) -> None:
    topk = manager(tmp_path)
    with pytest.raises(KeyError, match=r"'score' .* is missing; there are \['epoch', 'train_loss'\]"):
        topk.get_ckpt_path({"train_loss": 0.1, "epoch": 0})
    with pytest.raises(KeyError, match=r"needs 'epoch'; there are \['score'\]"):
        topk.get_ckpt_path({"score": 0.1})
    assert topk.state_dict() == {}
    assert manager(tmp_path, k=0).get_ckpt_path({}) is None


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'max' or 'min', got 'best'"):
        manager(tmp_path, mode="best")
    with pytest.raises(ValueError, match="0 or more, got -1"):
        manager(tmp_path, k=-1)


def test_files_of_a_run_without_a_table_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("latest.ckpt", "epoch=0100-score=nan.ckpt", "epoch=0003-score=x.ckpt", "epoch=0002.ckpt"):
        (tmp_path / name).touch()
    for epoch, score in {9: 0.2, 10: 0.7, 11: 0.5, 12: 0.5, 13: -0.1}.items():
        (tmp_path / FORMAT.format(epoch=epoch, score=score)).touch()
    before = files(tmp_path)
    topk = manager(tmp_path)
    topk.recognise_files()
    assert topk.state_dict() == {"epoch=0010-score=0.700.ckpt": 0.7, "epoch=0011-score=0.500.ckpt": 0.5}
    assert files(tmp_path) == before
    save(topk, 14, 0.6)
    assert "epoch=0011-score=0.500.ckpt" not in files(tmp_path)
    assert len(files(tmp_path)) == len(before)
    least = manager(tmp_path, mode="min", k=3)
    least.recognise_files()
    assert sorted(least.state_dict().values()) == [-0.1, 0.2, 0.5]


def test_a_failed_save_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    topk = manager(tmp_path)
    save(topk, 0, 0.1)
    kept = files(tmp_path)

    def fail(epoch: int) -> None:
        with topk.saving({"epoch": epoch, "score": 0.1 if epoch == 0 else 0.9}) as path:
            assert path is not None
            Path(path).touch()
            raise OSError("no space left on device")

    for epoch in (0, 1):  # the first overwrites a file that was there
        with pytest.raises(OSError, match="no space left"):
            fail(epoch)
        assert files(tmp_path) == kept
