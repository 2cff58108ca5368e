import time
from pathlib import Path

import pytest

from diffusion_policy.real_world.cameras.recording_thread import RecordingReport
from diffusion_policy.real_world.timing_report import TimingReport, in_words


def test_durations_counts_and_frames_are_summed_up() -> None:
    report = TimingReport()
    for ms in range(1, 101):
        report.add("inference", ms / 1000)
    report.count("late_actions", 2)
    report.count("late_actions", 3)
    for _ in range(3):
        report.cycle()
        time.sleep(0.02)
    videos = [RecordingReport(Path(f"{i}.mp4"), n_frames=30, n_repeated=1, n_dropped=i) for i in range(2)]
    summary = report.summary(videos)
    assert summary["inference_p50_ms"] == pytest.approx(50.5)
    assert (summary["inference_max_ms"], summary["late_actions"]) == (100, 5)
    assert summary["period_p50_ms"] == pytest.approx(20, abs=8)
    assert (summary["frames"], summary["frames_repeated"], summary["frames_dropped"]) == (60, 2, 1)
    words = in_words(summary)
    assert "inference: median 50.5 ms, 99 % 99.0 ms, at most 100.0 ms" in words
    assert "late_actions 5" in words
