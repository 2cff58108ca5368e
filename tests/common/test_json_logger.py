import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.common.json_logger import JsonLogger, read_json_log


@pytest.fixture(scope="module")
def facts(compat: Path) -> dict[str, Any]:
    return json.loads((compat / "numerics" / "misc.json").read_text())["json_logger"]


FIRST = {
    "train_loss": 0.5,
    "global_step": 0,
    "epoch": 0,
    "lr": 1e-4,
    "flag": True,
    "nan": float("nan"),
    "f32": np.float32(0.1),
    "tensor": torch.zeros(()),
    "array": np.zeros(3),
    "text": "video.mp4",
    "none": None,
}
SECOND = {"global_step": 1, "test/mean_score": 0.25, "train_loss": 0.1}


def write(path: Path, *records: dict[str, Any]) -> None:
    with JsonLogger(path) as logger:
        for record in records:
            logger.log(record)


def test_file_is_as_the_original_writes_it(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "logs.json.txt"
    with JsonLogger(path) as logger:
        assert logger.get_last_log() is None
        logger.log(FIRST)
        assert path.read_text() == facts["first_file_text"]  # without waiting for the end
    with path.open("a") as file:
        file.write('{"train_loss": 0.3, "glob')
    with JsonLogger(path) as logger:
        assert logger.get_last_log() == pytest.approx(json.loads(facts["first_file_text"]), nan_ok=True)
        logger.log(SECOND)
    assert path.read_text() == facts["second_file_text"]


def test_read_json_log(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "logs.json.txt"
    path.write_text(facts["second_file_text"] + '{"test/mean_score": 0.75')
    expected = facts['read_json_log(required_keys=["test/mean_score"])']
    assert json.loads(read_json_log(path, required_keys=["test/mean_score"]).to_json()) == expected
    assert len(read_json_log(path)) == facts["read_json_log(required_keys=())_len"]
    both = read_json_log(path, required_keys=("train_loss", "test/mean_score"))
    assert both["global_step"].tolist() == [0, 1]
    assert np.isnan(both["nan"]).all()
    assert read_json_log(path, ["train_loss"], nrows=1)["global_step"].tolist() == [0]


def test_last_log_is_a_copy(tmp_path: Path) -> None:
    with JsonLogger(tmp_path / "log", filter_fn=lambda key, value: key != "skip") as logger:
        logger.log({"a": [1], "skip": 2})
        last = logger.get_last_log()
        assert last == {"a": [1]}
        last["a"].append(2)
        assert logger.get_last_log() == {"a": [1]}


def test_rewind(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *({"global_step": step, "train_loss": step / 2} for step in range(6)), {"note": 1})
    with JsonLogger(path) as logger:
        logger.rewind(4)
        assert logger.get_last_log() == {"note": 1}
        logger.rewind(2)
        logger.log({"global_step": 2, "train_loss": -1})
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records == [
        {"global_step": 0, "train_loss": 0.0},
        {"global_step": 1, "train_loss": 0.5},
        {"note": 1},
        {"global_step": 2, "train_loss": -1},
    ]
    assert list(tmp_path.iterdir()) == [path]
    with JsonLogger(path) as logger:
        logger.rewind(0)
        logger.rewind(10)
        assert logger.get_last_log() == {"note": 1}


def test_a_line_that_is_no_record_is_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"global_step": 0}\n\x00\x00\n')
    with JsonLogger(path) as logger:
        assert "no JSON object" in caplog.text
        assert logger.get_last_log() is None
        logger.log({"global_step": 1})
        logger.rewind(1)
    assert path.read_bytes() == b'{"global_step": 0}\n\x00\x00\n'


def test_not_started(tmp_path: Path) -> None:
    logger = JsonLogger(tmp_path / "log")
    for act in (lambda: logger.log({"a": 1}), lambda: logger.rewind(0)):
        with pytest.raises(RuntimeError, match=r"call start\(\)"):
            act()
    logger.stop()
    with pytest.raises(FileNotFoundError):
        JsonLogger(tmp_path / "missing" / "log").start()


def test_damaged_lines_are_left_out_when_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "logs.json.txt"
    path.write_bytes(b'{"loss": 1.0}\n\x00\x00loss\n"loss"\n{"loss": NaN}\n{"loss": 3.0}\n{"loss": 4')
    assert read_json_log(path, ["loss"])["loss"].fillna(-1).tolist() == [1, -1, 3]
    assert "no JSON object" in caplog.text
