import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_policy.common.report import MAX_VIDEO_BYTES, MAX_VIDEOS, write_report
from diffusion_policy.common.video_recorder import VideoRecorder

TEST_SCORES = {100000: 1.0, 100001: 0.25, 100002: 0.75, 100003: 1.0}


def runner_result() -> dict[str, Any]:
    scores = {f"test/sim_max_reward_{seed}": score for seed, score in TEST_SCORES.items()}
    return {**scores, "test/mean_score": 0.75, "train/sim_max_reward_0": 0.5, "train/mean_score": 0.5}


def training_records(n_epochs: int = 4, steps_per_epoch: int = 50) -> list[dict[str, float]]:
    records: list[dict[str, float]] = []
    for step in range(n_epochs * steps_per_epoch):
        record = {"train_loss": 1 / (1 + step), "global_step": step, "epoch": step // steps_per_epoch, "lr": 1e-4}
        if (step + 1) % steps_per_epoch == 0:
            epoch_score = 0.9 if record["epoch"] == 1 else 0.3
            speed = {"steps_per_second": 100.0, "samples_per_second": 6400.0, "peak_memory_mb": 512.0}
            record |= {**speed, "val_loss": 0.2, "test/mean_score": epoch_score, "train_action_mse_error": 3.0}
        records.append(record)
    return [*records[:-1], records[-1] | runner_result()]


def write_log(folder: Path, records: list[dict[str, float]]) -> None:
    (folder / "logs.json.txt").write_text("".join(json.dumps(record) + "\n" for record in records))


def record_video(path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    recorder = VideoRecorder.create_h264(fps=10)
    recorder.start(path)
    for value in (0, 128, 255):
        recorder.write_frame(np.full((96, 96, 3), value, dtype=np.uint8))
    recorder.stop()
    return str(path)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a finished training run leaves behind."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(
        "name: train_unet\n"
        "task: {name: pusht_lowdim, pad: \"${eval:'1+1'}\"}\n"
        "policy: {_target_: diffusion_policy.policy.some.DiffusionUnetLowdimPolicy}\n"
        "training: {device: 'cuda:0', note: '<script>alert(1)</script>'}\n"
    )
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- exp_name=<b>&c\n")
    write_log(tmp_path, training_records())
    video = record_video(tmp_path / "media" / "abcdefgh.mp4")
    (tmp_path / "eval_log.json").write_text(json.dumps({**runner_result(), "test/sim_video_100001": video}))
    return tmp_path


class Page(HTMLParser):
    """The tags, the links and the visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = {key: value or "" for key, value in attrs}
        self.links += [attributes[key] for key in ("src", "href", "xlink:href") if key in attributes]
        self.titles += [attributes[key] for key in ("title",) if key in attributes]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_nothing_beside_it(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"url\((?!#)", page.source)
    assert "@import" not in page.source
    assert "script" not in page.tags
    addresses = re.findall(r'(\S+)="https?://', page.source)
    assert {name.partition(":")[0] for name in addresses} <= {"xmlns"}


def test_page_shows_scores_with_intervals(run_folder: Path) -> None:
    text = Page(write_report(run_folder)).text
    assert "pusht_lowdim" in text
    assert "DiffusionUnetLowdimPolicy" in text
    assert re.search(r"Final test score\s*0\.750\s*95 % CI 0\.\d\d to (0\.\d\d|1\.00)", text)
    assert re.search(r"Best test score\s*0\.900\s*epoch 1\b", text)
    assert re.search(r"Success rate\s*50%\s*95 % CI 15% to 85% · 2 of 4", text)


def test_page_shows_how_training_went(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    assert re.search(r"Training time\s*2\.0 s", page.text)
    assert re.search(r"Training speed\s*100\.0 steps/s\s*6,400 samples/s", page.text)
    assert re.search(r"Training steps\s*200\s*4 epochs", page.text)
    assert re.search(r"Peak memory\s*512 MB", page.text)
    assert re.search(r"Device\s*cuda:0", page.text)
    assert page.tags.count("svg") == 4  # score, loss, action error, learning rate


def test_page_shows_every_seed_best_first(run_folder: Path) -> None:
    titles = Page(write_report(run_folder)).titles
    assert [float(title.rpartition(" ")[2]) for title in titles] == [1.0, 1.0, 0.75, 0.25, 0.5]
    for seed, score in {**TEST_SCORES, 0: 0.5}.items():
        assert f"seed {seed}: {score:.3f}" in titles


def test_video_is_embedded_unchanged(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    videos = [link for link in page.links if link.startswith("data:video/mp4;base64,")]
    embedded = [base64.b64decode(video.partition(",")[2], validate=True) for video in videos]
    assert embedded == [(run_folder / "media" / "abcdefgh.mp4").read_bytes()]
    assert re.search(r"test · seed 100001\s*0\.250", page.text)


def test_video_is_found_after_the_folder_moved(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = run_folder.rename(tmp_path_factory.mktemp("elsewhere") / "run")
    assert Page(write_report(moved)).tags.count("video") == 1


def test_videos_that_are_missing_or_too_many_are_counted(run_folder: Path) -> None:
    content = (run_folder / "media" / "abcdefgh.mp4").read_bytes()
    videos = {f"train/sim_video_{seed}": f"media/{seed}.mp4" for seed in range(MAX_VIDEOS + 3)}
    for path in list(videos.values())[2:]:
        (run_folder / path).write_bytes(content)
    (run_folder / "media" / "1.mp4").write_bytes(bytes(MAX_VIDEO_BYTES + 1))
    (run_folder / "eval_log.json").write_text(json.dumps(runner_result() | videos))
    page = Page(write_report(run_folder))
    assert page.tags.count("video") == MAX_VIDEOS
    assert "3 more recordings are not shown" in page.text


def test_config_is_text_not_markup(run_folder: Path) -> None:
    page = Page(write_report(run_folder))
    assert "<script>alert(1)</script>" in page.text
    assert "<script>" not in page.source
    assert "exp_name=<b>&c" in page.text
    assert "${eval:'1+1'}" in page.text


def test_log_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    write_log(tmp_path, training_records())
    log = tmp_path / "logs.json.txt"
    log.write_text(log.read_text() + '{"train_loss": 0.1, "global_st')
    assert re.search(r"Training steps\s*200\s*4 epochs", Page(write_report(tmp_path)).text)


def test_scores_of_a_run_without_eval_log_come_from_its_log(tmp_path: Path) -> None:
    write_log(tmp_path, training_records())
    page = Page(write_report(tmp_path))
    assert re.search(r"Final test score\s*0\.750", page.text)
    assert "seed 100001: 0.250" in page.titles


def test_values_not_finite_leave_gaps(tmp_path: Path) -> None:
    records = training_records()
    for record in records[::2]:
        record["train_loss"] = math.nan
    records[-1]["test/sim_max_reward_100000"] = records[-1]["test/mean_score"] = math.nan
    write_log(tmp_path, records)
    page = Page(write_report(tmp_path))
    assert re.search(r"Final test score\s*not finite", page.text)
    assert "seed 100000: not finite" in page.titles
    assert "nan" not in page.text.lower()


def test_evaluation_alone_makes_a_report(tmp_path: Path) -> None:
    (tmp_path / "eval_log.json").write_text(json.dumps({**runner_result(), "test/p_4": 0.25}))
    page = Page(write_report(tmp_path))
    assert tmp_path.name in page.text
    assert re.search(r"Test score\s*0\.750", page.text)
    assert re.search(r"test/p_4\s*0\.250", page.text)
    assert "svg" not in page.tags


def test_empty_log_makes_a_report(tmp_path: Path) -> None:
    write_log(tmp_path, [])
    assert "Nothing has been logged yet" in Page(write_report(tmp_path)).text


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"test/mean_score": 0.'])
def test_damaged_eval_log_is_left_out(run_folder: Path, content: str) -> None:
    (run_folder / "eval_log.json").write_text(content)
    assert re.search(r"Final test score\s*0\.750", Page(write_report(run_folder)).text)


def test_resumed_run_shows_the_later_values_of_a_step(tmp_path: Path) -> None:
    records = training_records()
    repeated = records[-1] | {"test/mean_score": 0.95}
    write_log(tmp_path, [*records, repeated])
    text = Page(write_report(tmp_path)).text
    assert re.search(r"Final test score\s*0\.950", text)
    assert re.search(r"Training steps\s*200\s*4 epochs", text)


def test_report_is_a_function_of_the_folder(run_folder: Path) -> None:
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first
    assert write_report(str(run_folder)) == run_folder / "report.html"


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither logs\.json\.txt nor eval_log\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
