"""From a command's options to an operator's station."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffusion_policy.real_world.devices import Devices, real_devices, simulated_devices
from diffusion_policy.real_world.display import has_display
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.operator_view import OperatorView
from diffusion_policy.real_world.real_env import RealEnv
from diffusion_policy.real_world.rig_config import CameraConfig, RigConfig, RobotConfig, TeleopConfig, read_rig_config
from diffusion_policy.real_world.station import OnFault, Station

REALSENSE_SETTINGS = {"exposure": 120.0, "gain": 0.0, "white_balance": 5900.0}
"""What demonstrations are recorded with unless a file says otherwise."""

SIM_PATIENCE = 1.0
"""s that the simulated robot may be silent: it shares the processor with all else."""


@dataclass(frozen=True)
class SessionOptions:
    """What both of the robot's commands are told."""

    output: str
    robot_ip: str | None
    vis_camera_idx: int
    init_joints: bool
    frequency: float
    command_latency: float
    sim: bool
    sim_seed: int
    camera: str | None
    teleop: str | None
    rig: str | None
    on_fault: OnFault


@contextmanager
def open_station(
    options: SessionOptions,
    n_demonstrations: int | None = None,
    n_obs_steps: int = 2,
    resolution: tuple[int, int] | None = None,
) -> Iterator[tuple[Station, Callable[[int], object] | None]]:
    """Starts everything; stops it in the end, the arm first.

    Args:
        n_demonstrations: that a script gives, on the simulated rig; None for a person.
        n_obs_steps, resolution: of observations; by default the cameras'.

    Returns:
        The station and, of a simulated table, what puts the block elsewhere.
    """
    config = rig_config(options, scripted=n_demonstrations is not None)
    if options.sim:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        devices = stack.enter_context(_devices(options, config, n_demonstrations))
        env = stack.enter_context(_env(options, config, devices, n_obs_steps, resolution))
        _set_cameras(env, config.camera)
        n_cameras = env.cameras.n_cameras
        if not 0 <= options.vis_camera_idx < n_cameras:
            raise ValueError(f"--vis_camera_idx is {options.vis_camera_idx}, but there are {n_cameras} cameras")
        # As Ctrl-C: the arm is stopped and the episode saved. Devices' processes, which are there now, end by it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        view = stack.enter_context(OperatorView())
        output_dir = Path(options.output)
        yield Station(env, devices.teleop, devices.keys, view, output_dir, options.vis_camera_idx), devices.new_scene


def rig_config(options: SessionOptions, scripted: bool) -> RigConfig:
    """The settings of devices: a file's and the options', on top of defaults that suit a real or a simulated rig."""
    if options.sim:
        teleop = "spacemouse" if scripted or not has_display() else "keyboard"
        camera = CameraConfig("sim", resolution=[640, 360])
        defaults = RigConfig(camera, TeleopConfig(teleop), RobotConfig(patience=SIM_PATIENCE))
    else:
        defaults = RigConfig()
    return read_rig_config(options.rig, defaults, {"camera.kind": options.camera, "teleop.kind": options.teleop})


def _devices(
    options: SessionOptions, config: RigConfig, n_demonstrations: int | None
) -> AbstractContextManager[Devices]:
    if options.sim:
        return simulated_devices(config, options.sim_seed, n_demonstrations)
    if options.robot_ip is None:
        raise ValueError("--robot_ip is missing: give the robot's address, or --sim")
    if n_demonstrations is not None:
        raise ValueError("a script demonstrates on the simulated rig only: add --sim")
    return real_devices(config, options.robot_ip)


def _env(
    options: SessionOptions,
    config: RigConfig,
    devices: Devices,
    n_obs_steps: int,
    resolution: tuple[int, int] | None,
) -> RealEnv:
    robot = config.robot
    return RealEnv(
        options.output,
        devices.robot_ip,
        frequency=options.frequency,
        n_obs_steps=n_obs_steps,
        obs_image_resolution=resolution or devices.cameras[0].resolution,
        max_pos_speed=robot.max_pos_speed,
        max_rot_speed=robot.max_rot_speed,
        tcp_offset=robot.tcp_offset,
        init_joints=options.init_joints,
        camera_sources=devices.cameras,
        motion_limits=_limits(robot),
        robot_patience=robot.patience,
    )


def _limits(config: RobotConfig) -> MotionLimits | None:
    if config.workspace is None:
        return None
    (x0, y0, z0), (x1, y1, z1) = config.workspace
    return MotionLimits(workspace=((x0, y0, z0), (x1, y1, z1)))


def _set_cameras(env: RealEnv, config: CameraConfig) -> None:
    """Fixes what is to be fixed; of RealSense cameras everything, by default."""
    chosen = {key: getattr(config, key) for key in REALSENSE_SETTINGS}
    if config.kind == "realsense":
        chosen = {key: default if chosen[key] is None else chosen[key] for key, default in REALSENSE_SETTINGS.items()}
    if chosen["exposure"] is not None or chosen["gain"] is not None:
        env.cameras.set_exposure(chosen["exposure"], chosen["gain"])
    if chosen["white_balance"] is not None:
        env.cameras.set_white_balance(chosen["white_balance"])
