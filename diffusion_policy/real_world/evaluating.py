"""`eval_real_robot.py`, without its command line."""

import logging
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from diffusion_policy.real_world.devices import nobody_is_there
from diffusion_policy.real_world.eval_loop import EvalLoop, EvalSettings
from diffusion_policy.real_world.match_overlay import MatchOverlay
from diffusion_policy.real_world.real_inference_util import get_real_obs_resolution
from diffusion_policy.real_world.robot_policy import LocalPolicy, RobotPolicy, ServedPolicy
from diffusion_policy.real_world.robot_session import SessionOptions, open_station

log = logging.getLogger(__name__)

SIM_DATASET = "data/demo_sim"
OUTPUTS = "data/outputs"


@dataclass(frozen=True)
class PolicyOptions:
    """Which policy is evaluated, and how."""

    checkpoint: str | None
    policy_server: str | None
    api_key: str | None
    device: str
    trust: bool
    steps_per_inference: int
    policy_timeout: float
    max_duration: float
    n_episodes: int | None
    match_dataset: str | None
    match_episode: int | None


def evaluate(options: SessionOptions, policy_options: PolicyOptions) -> int:
    """Records a policy's episodes until the operator quits; returns how many there are.

    Raises:
        PolicyError, RobotFaultError, CameraError, TeleopError, OperatorGone: what they say; the arm has stopped.
        ValueError, OSError, CheckpointError: options that do not fit, or a policy that cannot be had.
    """
    overlay = None
    if policy_options.match_dataset is not None:
        overlay = MatchOverlay(policy_options.match_dataset, options.vis_camera_idx, policy_options.match_episode)
    n_episodes = policy_options.n_episodes
    if n_episodes is None and options.sim and nobody_is_there():
        n_episodes = 1
    with closing(_policy(policy_options, options.sim)) as policy:
        resolution = get_real_obs_resolution(policy.shape_meta)
        with open_station(options, n_obs_steps=policy.n_obs_steps, resolution=resolution) as (station, new_scene):
            settings = EvalSettings(
                policy_options.max_duration,
                options.command_latency,
                policy_options.policy_timeout,
                n_episodes,
                new_scene,
            )
            EvalLoop(station, policy, settings, overlay).run(options.on_fault)
            return station.env.recorder.n_episodes


def last_checkpoint(dataset_path: str, outputs: str = OUTPUTS) -> Path:
    """The newest checkpoint of the runs in `outputs` that trained on a dataset.

    Raises:
        FileNotFoundError: there is none; the message says how to get one.
    """
    checkpoints = [
        path
        for path in Path(outputs).glob("*/*/checkpoints/latest.ckpt")
        if _trained_on(path.parents[1] / ".hydra" / "config.yaml") == dataset_path
    ]
    if not checkpoints:
        raise FileNotFoundError(
            f"no policy was trained on {dataset_path} yet. Collect demonstrations (python demo_real_robot.py --sim), "
            "train on them (python train.py --config-name=robot_quickstart), or give a checkpoint by --input"
        )
    return max(checkpoints, key=lambda path: path.stat().st_mtime)


def _trained_on(config: Path) -> str | None:
    return OmegaConf.select(OmegaConf.load(config), "task.dataset_path") if config.is_file() else None


def _policy(options: PolicyOptions, sim: bool) -> RobotPolicy:
    if options.policy_server is not None:
        if options.checkpoint is not None:
            raise ValueError("--input and --policy_server are both given: choose the policy of one of them")
        return ServedPolicy(options.policy_server, options.steps_per_inference, options.api_key, options.policy_timeout)
    if options.checkpoint is None and not sim:
        raise ValueError("--input is missing: give a checkpoint, or --policy_server")
    path = options.checkpoint or str(last_checkpoint(SIM_DATASET))
    log.info("Policy: %s", path)
    return LocalPolicy(path, options.device, options.steps_per_inference, options.trust)
