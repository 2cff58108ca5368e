"""The page of what `--debug` has kept."""

import base64
import re

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_policies import observation, served

from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.client import PolicyClient, PolicyServerError
from diffusion_policy.serving.debug_recorder import MAX_WAITING, DebugRecorder, Record
from diffusion_policy.serving.inspect import main, write_page
from diffusion_policy.serving.launch import training_ranges
from diffusion_policy.serving.wire import pack


def images(html):
    """The pictures of a page."""
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for png in found]


@pytest.fixture
def folder(tmp_path, stacked_checkpoint):
    """What a server kept of four requests: red images, as JPEG and stacked; out of range; and refused."""
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 250
    step = {**observation(0), "camera_1": red, "robot_eef_pose": np.array([0.5, 0.5], np.float32)}
    recorder = DebugRecorder(tmp_path / "debug", training_ranges(load_policy(stacked_checkpoint, "cpu")[0]))
    with served(stacked_checkpoint, recorder=recorder) as (port, _, _), PolicyClient("127.0.0.1", port) as client:
        jpeg = cv2.imencode(".jpg", red[..., ::-1])[1].tobytes()
        client.infer({**step, "camera_1": jpeg}, seed=41)
        client.infer({key: np.stack([value, value]) for key, value in step.items()})
        client.infer({**step, "robot_eef_pose": np.array([0.5, 77.5], np.float32)})
        with pytest.raises(PolicyServerError):
            client.infer({**step, "<script>": np.zeros((2, 3, 1), np.float64)})
    recorder.close()
    return tmp_path / "debug"


def test_files_hold_each_stage(folder):
    first, second, _, refused = (dict(np.load(path, allow_pickle=False)) for path in sorted(folder.glob("*.npz")))
    assert first["received/camera_1"].dtype == np.uint8
    assert first["received/camera_1"].ndim == 1
    assert first["policy/camera_1"].shape == (2, 3, 24, 32)
    assert first["actions"].shape == (4, 2)
    assert second["received/camera_1"].shape == (2, 48, 64, 3)
    assert (second["policy/camera_1"][:, 0] == 250).all()
    assert "actions" not in refused
    assert not any(key.startswith("policy/") for key in refused)


def test_the_page_shows_what_was_received_and_seen(folder):
    html = write_page(folder).read_text()
    shown = images(html)
    assert {image.shape for image in shown} == {(48, 64, 3), (24, 32, 3)}
    reds = [image for image in shown if image[..., 0].min() > 240 and image[..., 1:].max() < 15]
    assert len(reds) == 1 + 2 + 2 + 2 + 1 + 2 + 1  # received and seen of each request
    assert "seed 41" in html
    assert re.findall(r'class="bad">([\d.]+)<', html) == ["77.5"]
    assert "Refused: unknown key" in html
    assert "<script>" not in html
    assert html.count("<polyline") == 3 * 2


def test_the_command_shows_the_last_requests(folder, tmp_path):
    result = CliRunner().invoke(main, [str(folder), "-n", "1", "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "page.html") in result.output
    assert (tmp_path / "page.html").read_text().count("<section>") == 1
    result = CliRunner().invoke(main, [str(tmp_path / "absent")])
    assert result.exit_code == 1
    assert "holds no requests" in result.output


HOSTILE = [
    b"\xc1 no message",
    pack({"camera_1": np.full((3, 4, 5), np.nan, np.float32), "a": np.zeros((1, 1, 1, 1, 1))}),
    pack({"camera_1": b"\xff\xd8\xff\xe0 no JPEG", "../../x": np.zeros((2, 2, 7), np.uint8), "b": [b"a", 1, "x"]}),
    pack({"camera_1": np.zeros((1, 500_000, 3), np.uint8), "c": {"d": [1]}, "e": None, "f": "text", "g": 1e300}),
    pack([1, 2]),
]


def test_whatever_was_received_is_kept_and_shown(tmp_path):
    recorder = DebugRecorder(tmp_path, {})
    for packed in HOSTILE:
        recorder.record(Record("client", packed, None, None, {}, "refused"))
    recorder.close()
    assert write_page(tmp_path).read_text().count("<section>") == len(HOSTILE)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".html"}


def test_a_disk_that_fails_or_is_slow_ends_no_serving(tmp_path, caplog):
    recorder = DebugRecorder(tmp_path / "debug", {})
    (tmp_path / "debug").rmdir()
    image = pack({"camera_1": np.zeros((1000, 1000, 3), np.uint8)})
    for _ in range(10 * MAX_WAITING):
        recorder.record(Record("client", image, None, None, {}, None))
    recorder.close()
    assert "was not saved" in caplog.text
