"""The options of the robot's commands, and what is made of them, without a robot."""

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from diffusion_policy.real_world.devices import real_devices
from diffusion_policy.real_world.evaluating import last_checkpoint
from diffusion_policy.real_world.rig_config import CameraConfig, RigConfig, TeleopConfig


@pytest.mark.parametrize("script", ["demo_real_robot", "eval_real_robot"])
def test_options_are_the_originals(compat: Path, script: str) -> None:
    facts = json.loads((compat / "cli.json").read_text())[f"{script}.py"]
    options: dict[str, click.Option] = {}
    for option in importlib.import_module(script).main.params:
        options.update(dict.fromkeys(option.opts, option))
    for fact in facts["options"]:
        for name in fact["names"]:
            option = options[name]
            assert bool(option.is_flag) == fact.get("is_flag", False), name
            if not fact.get("required") and not option.is_flag:
                assert option.default == fact["default"], name


def test_commands_are_short(repository: Path) -> None:
    for script in ("demo_real_robot.py", "eval_real_robot.py"):
        assert len((repository / script).read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("demo_real_robot", [], "Missing option '--output' / '-o'"),
        ("demo_real_robot", ["-o", "demo"], "--robot_ip is missing: give the robot's address, or --sim"),
        ("demo_real_robot", ["-o", "demo", "-ri", "127.0.0.9", "-n", "2"], "on the simulated rig only: add --sim"),
        ("demo_real_robot", ["-o", "demo", "-ri", "127.0.0.9", "--camera", "sim"], "'sim', which needs --sim"),
        ("demo_real_robot", ["-o", "demo", "-ri", "127.0.0.9", "--rig", "no.yaml"], "no.yaml"),
        ("eval_real_robot", [], "Missing option '--output' / '-o'"),
        ("eval_real_robot", ["-o", "eval", "-ri", "127.0.0.9"], "--input is missing: give a checkpoint"),
        ("eval_real_robot", ["-o", "eval", "-i", "no.ckpt", "-ri", "127.0.0.9"], "no.ckpt"),
        ("eval_real_robot", ["-o", "eval", "-i", "a", "--policy_server", "ws://b"], "are both given"),
        ("eval_real_robot", ["-o", "eval", "-m", "nowhere"], "no recordings at nowhere"),
        ("eval_real_robot", ["--sim"], "no policy was trained on data/demo_sim yet. Collect demonstrations"),
    ],
)
def test_what_is_missing_or_contradicts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(importlib.import_module(script).main, arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert not list(tmp_path.iterdir())


def test_the_newest_checkpoint_of_the_dataset_is_found(tmp_path: Path) -> None:
    def run(name: str, dataset_path: str, age: float) -> Path:
        folder = tmp_path / "2026.01.01" / name
        for part in (".hydra", "checkpoints"):
            (folder / part).mkdir(parents=True)
        (folder / ".hydra/config.yaml").write_text(f"task: {{dataset_path: {dataset_path}}}")
        checkpoint = folder / "checkpoints/latest.ckpt"
        checkpoint.touch()
        os.utime(checkpoint, (time.time() - age,) * 2)
        return checkpoint

    run("a", "data/demo_sim", age=10)
    newest = run("b", "data/demo_sim", age=5)
    run("c", "data/other", age=0)
    (tmp_path / "2026.01.01/d/checkpoints").mkdir(parents=True)
    (tmp_path / "2026.01.01/d/checkpoints/latest.ckpt").touch()  # whose run is not known
    assert last_checkpoint("data/demo_sim", str(tmp_path)) == newest
    with pytest.raises(FileNotFoundError, match="no policy was trained on data/else yet"):
        last_checkpoint("data/else", str(tmp_path))


def test_webcams_and_the_keyboard_are_devices_too(display: str) -> None:
    config = RigConfig(CameraConfig("uvc", ["0", "/dev/video2"], [640, 480], 15), TeleopConfig("keyboard"))
    with real_devices(config, "192.168.0.204") as devices:
        found: list[Any] = [(camera.name, camera.resolution, camera.fps) for camera in devices.cameras]
        assert found == [("0", (640, 480), 15), ("/dev/video2", (640, 480), 15)]
        assert devices.robot_ip == "192.168.0.204"
        assert devices.new_scene is None
        assert devices.teleop.get_motion_state_transformed().tolist() == [0] * 6
        assert devices.keys.pressed() == []
