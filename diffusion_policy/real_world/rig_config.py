"""Which devices there are and how they are set, as a yaml file and options of a command say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

CAMERAS = ("realsense", "uvc", "sim")
TELEOPS = ("spacemouse", "keyboard")


@dataclass
class CameraConfig:
    """Cameras.

    Attributes:
        kind: one of `CAMERAS`.
        devices: serial numbers, or numbers, paths or addresses of `uvc` cameras; None for all that are connected.
        resolution: width and height, px.
        fps: Hz.
        exposure: 0.1 ms.
        gain: as the camera counts it.
        white_balance: K. Of these three None leaves the choice to the camera.
    """

    kind: str = "realsense"
    devices: list[str] | None = None
    resolution: list[int] = field(default_factory=lambda: [1280, 720])
    fps: float = 30.0
    exposure: float | None = None
    gain: float | None = None
    white_balance: float | None = None


@dataclass
class TeleopConfig:
    """What a person drives the arm with.

    Attributes:
        kind: one of `TELEOPS`.
        max_value: what a SpaceMouse counts at full deflection.
        deadzone: motion, of 1, that counts as none.
        speed: of the keyboard, of 1.
    """

    kind: str = "spacemouse"
    max_value: float = 500.0
    deadzone: float = 0.0
    speed: float = 0.5


@dataclass
class RobotConfig:
    """The arm.

    Attributes:
        tcp_offset: from the flange to the tool's tip, m.
        max_pos_speed, max_rot_speed: along and around an axis, m/s and rad/s.
        patience: s without a state of the robot, or without a command to it, after which it is stopped.
        workspace: lowest and highest x, y, z of the tool, m; None for wherever it reaches.
    """

    tcp_offset: float = 0.13
    max_pos_speed: float = 0.25
    max_rot_speed: float = 0.6
    patience: float = 0.2
    workspace: list[Any] | None = None


@dataclass
class RigConfig:
    """All of them."""

    camera: CameraConfig = field(default_factory=CameraConfig)
    teleop: TeleopConfig = field(default_factory=TeleopConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)


def read_rig_config(path: str | Path | None, defaults: RigConfig, overrides: Mapping[str, Any]) -> RigConfig:
    """The settings of `overrides`, by `camera.kind` and so on, where they are not None; else a file's; else `defaults`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has settings that do not exist, or values that do not fit.
    """
    config = OmegaConf.structured(defaults)
    try:
        if path is not None:
            config = OmegaConf.merge(config, OmegaConf.load(Path(path).expanduser()))
        for key, value in overrides.items():
            if value is not None:
                OmegaConf.update(config, key, value)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{path or 'the options'}: {str(error).splitlines()[0]}") from error
    read = OmegaConf.to_object(config)
    assert isinstance(read, RigConfig)
    _check(read)
    return read


def _check(config: RigConfig) -> None:
    for name, kind, kinds in (("camera", config.camera.kind, CAMERAS), ("teleop", config.teleop.kind, TELEOPS)):
        if kind not in kinds:
            raise ValueError(f"{name}.kind is {kind!r}, expected one of {', '.join(kinds)}")
    if len(config.camera.resolution) != 2 or min(config.camera.resolution) < 2:
        raise ValueError(f"camera.resolution is {config.camera.resolution}, expected width and height in px")
    workspace = config.robot.workspace
    try:
        corners = np.array(workspace, np.float64)
    except (TypeError, ValueError):
        corners = np.empty(0)
    if workspace is not None and corners.shape != (2, 3):
        raise ValueError(f"robot.workspace is {workspace}, expected the lowest and the highest x, y, z in m")
