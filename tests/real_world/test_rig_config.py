from pathlib import Path

import pytest

from diffusion_policy.real_world.rig_config import RigConfig, read_rig_config
from diffusion_policy.real_world.robot_session import SessionOptions, rig_config


def _options(**changes: object) -> SessionOptions:
    defaults = dict.fromkeys(SessionOptions.__dataclass_fields__)
    return SessionOptions(**{**defaults, "sim": False, **changes})


def test_a_file_and_options_change_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(
        "camera: {kind: uvc, devices: [0, /dev/video2], resolution: [640, 480]}\n"
        "teleop: {kind: keyboard, speed: 0.3}\n"
        "robot: {workspace: [[0, -0.4, 0.01], [0.7, 0.4, 1]]}\n"
    )
    config = rig_config(_options(rig=str(path), camera="realsense"), scripted=False)
    assert (config.camera.kind, config.camera.devices, config.camera.fps) == ("realsense", ["0", "/dev/video2"], 30)
    assert (config.teleop.kind, config.teleop.speed) == ("keyboard", 0.3)
    assert config.robot.workspace == [[0, -0.4, 0.01], [0.7, 0.4, 1]]
    assert config.robot.max_pos_speed == 0.25


def test_defaults_are_those_of_the_original_or_of_the_simulated_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rig_config(_options(), scripted=False)
    assert (real.camera.kind, real.camera.resolution, real.teleop.kind) == ("realsense", [1280, 720], "spacemouse")
    monkeypatch.setenv("DISPLAY", "")
    sim = rig_config(_options(sim=True), scripted=False)
    assert (sim.camera.kind, sim.teleop.kind) == ("sim", "spacemouse")
    assert rig_config(_options(sim=True, teleop="keyboard"), scripted=True).teleop.kind == "keyboard"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camra: {}", "Key 'camra' not in 'RigConfig'"),
        ("camera: {fps: fast}", "'fast' of type 'str' could not be converted to Float"),
        ("camera: {kind: polaroid}", "camera.kind is 'polaroid', expected one of realsense, uvc, sim"),
        ("teleop: {kind: joystick}", "teleop.kind is 'joystick', expected one of spacemouse, keyboard"),
        ("camera: {resolution: [640]}", "expected width and height"),
        ("robot: {workspace: [[0, 1, 2], [2, 3]]}", "expected the lowest and the highest x, y, z"),
        ("robot: {workspace: [[0, 1], [2, 3]]}", "expected the lowest and the highest x, y, z"),
        ("[1, 2", "rig.yaml"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rig_config(path, RigConfig(), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        read_rig_config(tmp_path / "no.yaml", RigConfig(), {})
