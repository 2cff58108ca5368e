import json
import math
import os
import shutil
import time

import pytest

from diffusion_policy.common.json_logger import JsonLogger
from diffusion_policy.sweep.monitor import Monitor, follow
from diffusion_policy.sweep.run_folders import SILENCE, RunFolder, find_runs
from diffusion_policy.sweep.worker import FAILURE

KEY = "test/mean_score"


def record(epoch, score=None):
    values = {"global_step": 10 * epoch + 9, "epoch": epoch, "train_loss": 1 / (1 + epoch), "val_loss": 2.0 + epoch}
    return values if score is None else values | {KEY: score}


def write_run(folder, scores, seed=None):
    folder.mkdir(parents=True, exist_ok=True)
    with JsonLogger(folder / "logs.json.txt") as log:
        for epoch, score in enumerate(scores):
            log.log({"global_step": 10 * epoch, "epoch": epoch, "train_loss": 9.0})
            log.log(record(epoch, score))
    if seed is not None:
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / "config.yaml").write_text(f"training: {{seed: {seed}, num_epochs: {len(scores)}}}\n")


def written(folder):
    lines = (folder / "metrics" / "logs.json.txt").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((folder / "metrics" / "metrics.json").read_text())


@pytest.fixture
def sweep(tmp_path):
    write_run(tmp_path / "train_0", [0.1, None, 0.6], seed=42)
    write_run(tmp_path / "train_1", [0.3, None, 0.8], seed=43)
    (tmp_path / "config.yaml").write_text("name: some_sweep\ntask_name: pusht\ntraining: {num_epochs: 3}\n")
    return tmp_path


def test_finished_sweep(sweep):
    logged = []
    monitor = Monitor(sweep, [KEY])
    follow(monitor, interval=3600, log=lambda values, step: logged.append((step, values)))  # ends at once
    records, metrics = written(sweep)
    assert [step for step, _ in logged] == [9, 29]
    assert [values for _, values in logged] == records
    assert [values["max/test_mean_score"] for values in records] == pytest.approx([0.2, 0.7])
    assert metrics["min_val_loss/test_mean_score"] == pytest.approx(0.2)
    assert metrics["runs"]["train_1"]["max/test_mean_score"] == 0.8
    assert metrics["half_width_95"]["last/test_mean_score"] == pytest.approx(
        12.7062 * 0.1414214 / math.sqrt(2), rel=1e-4
    )
    page = (sweep / "metrics" / "report.html").read_text()
    assert "train_1 (seed 43)" in page
    assert "0.700 ± 1.271" in page
    assert "some_sweep" in page
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org/", "")  # namespaces of SVG


def test_runs_that_go_on(sweep):
    """A half-written line, a step that is logged again after a run was resumed, a run that begins late."""
    log = sweep / "train_0" / "logs.json.txt"
    whole = log.read_text()
    log.write_text(whole[:-20])
    (sweep / "train_2").mkdir()
    monitor = Monitor(sweep, [KEY])
    assert monitor.update()
    assert [values["global_step"] for values in written(sweep)[0]] == [9]
    assert not monitor.update()

    log.write_text(whole + json.dumps(record(2, 0.2)) + "\n")
    assert monitor.update()
    assert written(sweep)[1]["last/test_mean_score"] == pytest.approx((0.2 + 0.8) / 2)

    with log.open("a") as file:
        file.write(json.dumps({"global_step": 30, "epoch": 3, "train_loss": 0.1}) + "\n")
    assert not monitor.update()  # no score in it

    write_run(sweep / "train_2", [0.5])
    assert monitor.update()
    records, metrics = written(sweep)
    assert [values["global_step"] for values in records] == [9]
    assert len(metrics["runs"]) == 3
    (sweep / "train_2" / FAILURE).write_text("killed")
    assert monitor.update()
    assert len(written(sweep)[1]["runs"]) == 2


def test_scores_that_some_or_all_runs_lack(sweep):
    monitor = Monitor(sweep, ["test/p_1"])
    assert not monitor.update()
    assert monitor.result is None
    write_run(sweep / "train_2", [0.5, None, 0.7])
    with JsonLogger(sweep / "train_2" / "logs.json.txt") as log:
        log.log(record(2, 0.7) | {"test/p_1": 0.25})
    monitor = Monitor(sweep, [KEY, "test/p_1"], replace_slash=False)
    assert monitor.update()
    assert monitor.result.last["max/test/p_1"] == 0.25
    assert monitor.result.last["max/test/mean_score"] == pytest.approx((0.6 + 0.8 + 0.7) / 3)


def test_losses_that_are_not_finite(sweep):
    for run in ("train_0", "train_1"):
        log = sweep / run / "logs.json.txt"
        records = [json.loads(line) for line in log.read_text().splitlines()]
        bad = [json.dumps(values | {"train_loss": math.nan, "val_loss": math.inf}) + "\n" for values in records]
        log.write_text("".join(bad))
    assert Monitor(sweep, [KEY]).update()
    assert written(sweep)[1]["max/test_mean_score"] == pytest.approx(0.7)
    assert (sweep / "metrics" / "report.html").read_text().count("<svg") == 1


def test_logs_of_the_original(compat, tmp_path):
    """Three copies of one run's log: the mean is that of each."""
    log = compat / "ckpt" / "unet_lowdim_4steps.logs.json.txt"
    values = [json.loads(line) for line in log.read_text().splitlines()]
    scores = [value[KEY] for value in values if KEY in value]
    for i in range(3):
        (tmp_path / f"train_{i}").mkdir()
        shutil.copy(log, tmp_path / f"train_{i}" / "logs.json.txt")
    assert Monitor(tmp_path, [KEY]).update()
    records, metrics = written(tmp_path)
    assert len(records) == len(scores)
    assert metrics["max/test_mean_score"] == pytest.approx(max(scores))
    assert metrics["last/test_mean_score"] == pytest.approx(scores[-1])
    assert metrics["half_width_95"]["max/test_mean_score"] == pytest.approx(0, abs=1e-12)
    assert metrics["epoch"] == [value["epoch"] for value in values if KEY in value][-1]


def test_folders_are_found_by_their_number(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no runs: expected folders train_0"):
        find_runs(tmp_path)
    for name in ("1", "0", ".submitit", "metrics"):
        (tmp_path / name).mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["0", "1"]  # of Hydra's --multirun
    for name in ("train_10", "train_9", "train_x"):
        (tmp_path / name).mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["train_9", "train_10"]


def test_when_a_run_is_over(tmp_path):
    folder = tmp_path / "train_0"
    folder.mkdir()
    assert not RunFolder(folder).is_over(silence=0)  # has not begun
    log = folder / "logs.json.txt"
    log.write_text(json.dumps({"global_step": 20, "epoch": 2, "train_loss": 1.0}) + "\n")
    assert not RunFolder(folder).is_over(silence=60)
    assert RunFolder(folder).is_over(silence=0)  # nobody knows how long it is to be
    (tmp_path / "config.yaml").write_text("training: {num_epochs: 3}\n")
    run = RunFolder(folder)
    assert not run.is_over(silence=0)  # in its last epoch
    os.utime(log, (time.time() - SILENCE - 1,) * 2)
    assert run.is_over(silence=0)
    with log.open("a") as file:
        file.write(json.dumps(record(2)) + "\n")
    assert run.is_over(silence=60)
    with log.open("a") as file:
        file.write(json.dumps({"global_step": 30, "epoch": 3, "train_loss": 1.0}) + "\n")
    assert not run.is_over(silence=60)
    (folder / FAILURE).touch()
    assert run.is_over(silence=60)
