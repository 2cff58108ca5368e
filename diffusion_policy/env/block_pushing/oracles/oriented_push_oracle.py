"""A demonstrator that goes behind a block and pushes it to its target."""

import math

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.env.block_pushing.block_pushing import Obs
from diffusion_policy.env.block_pushing.oracles.pushing_info import FloatArray, PushingInfo

# m
PRE_BLOCK_DIST = 0.055
CLEARANCE = 0.045  # more than the block's half diagonal and the tool's radius together
ARRIVED_DIST = 0.006
LOST_SIDEWAYS = 0.016  # a push that slipped off: the block's face is 0.02 wide on either side
LOST_BEHIND = 0.075
# m in a control period
MOVE_STEP = 0.025
PUSH_STEP = 0.015

STEERING = 20.0  # slope per m that the tool is off the line; balances a block that turns on one point of contact


class OrientedPushOracle:
    """Pushes the env's (first) block to its (first) target; `action` says what to do next.

    Args:
        env: a BlockPush, or a wrapper of it.
        action_noise_std: standard deviation of noise on each action (m).
        seed: of what the oracle draws.
    """

    def __init__(self, env: gymnasium.Env, action_noise_std: float = 0.0, seed: int | None = None) -> None:
        self._abs_action: bool = env.unwrapped.abs_action  # type: ignore[attr-defined]
        self._action_noise_std = action_noise_std
        self._rng = np.random.RandomState(seed)
        self.reset()

    def reset(self) -> None:
        """Begins an episode."""
        self._is_pushing = False

    def action(self, obs: Obs) -> NDArray[np.float32]:
        """What to do, `(2,)`, as the env takes it, after an observation of it (a dict)."""
        step = self._action(obs)
        step = step + self._action_noise_std * self._rng.standard_normal(2)
        return np.asarray(step + obs["effector_target_translation"] if self._abs_action else step, dtype=np.float32)

    def get_theta_from_vector(self, vector: ArrayLike) -> float:
        """Angle of a vector `(2,)` from the x axis, in (-pi, pi]."""
        x, y = np.asarray(vector, dtype=np.float64)
        return math.atan2(y, x)

    def theta_to_rotation2d(self, theta: float) -> FloatArray:
        """Matrix `(2, 2)` that turns vectors by `theta`."""
        cos, sin = math.cos(theta), math.sin(theta)
        return np.array([[cos, -sin], [sin, cos]])

    def rotate(self, theta: float, xy_dir_block_to_ee: ArrayLike) -> FloatArray:
        """A vector `(2,)` turned by `theta`."""
        return self.theta_to_rotation2d(theta) @ np.asarray(xy_dir_block_to_ee, dtype=np.float64)

    def _action(self, obs: Obs) -> FloatArray:
        return self._get_action_for_block_target(obs, "block", "target")

    def _get_action_for_block_target(self, obs: Obs, block: str, target: str) -> FloatArray:
        info = self._get_action_info(obs, block, target)
        self._is_pushing = self._may_push(info)
        return self._get_push_block(info) if self._is_pushing else self._get_move_to_preblock(info)

    def _get_action_info(self, obs: Obs, block: str, target: str) -> PushingInfo:
        blocks = {key: value.astype(np.float64) for key, value in obs.items() if key.startswith("block")}
        xy_block = blocks[f"{block}_translation"]
        xy_ee = obs["effector_target_translation"].astype(np.float64)
        to_target = obs[f"{target}_translation"] - xy_block
        distance = float(np.linalg.norm(to_target))
        direction = to_target / max(distance, 1e-6)
        return PushingInfo(
            xy_block=xy_block,
            xy_ee=xy_ee,
            xy_dir_block_to_target=direction,
            xy_pre_block=xy_block - PRE_BLOCK_DIST * direction,
            distance_to_target=distance,
            sideways=float(self.rotate(math.pi / 2, direction) @ (xy_ee - xy_block)),
            behind=float(direction @ (xy_block - xy_ee)),
            obstacle_poses=[value for key, value in blocks.items() if key.endswith("_translation")],
        )

    def _may_push(self, info: PushingInfo) -> bool:
        if self._is_pushing:
            return abs(info.sideways) < LOST_SIDEWAYS and 0 < info.behind < LOST_BEHIND
        return float(np.linalg.norm(info.xy_pre_block - info.xy_ee)) < ARRIVED_DIST

    def _get_push_block(self, info: PushingInfo) -> FloatArray:
        """Forward, and back to the line of the push."""
        left = self.rotate(math.pi / 2, info.xy_dir_block_to_target)
        direction = info.xy_dir_block_to_target - STEERING * info.sideways * left
        return PUSH_STEP * direction / float(np.linalg.norm(direction))

    def _get_move_to_preblock(self, info: PushingInfo) -> FloatArray:
        """Towards the point behind the block, around blocks that are in the way."""
        to_goal = info.xy_pre_block - info.xy_ee
        distance = float(np.linalg.norm(to_goal))
        theta = self._around(info, self.get_theta_from_vector(to_goal), distance)
        return self.rotate(theta, (min(MOVE_STEP, distance), 0.0))

    def _around(self, info: PushingInfo, theta: float, distance: float) -> float:
        """The direction nearest to `theta` that touches no block on the way."""
        for xy_block in sorted(info.obstacle_poses, key=lambda xy: float(np.linalg.norm(xy - info.xy_ee))):
            to_block = xy_block - info.xy_ee
            away = float(np.linalg.norm(to_block))
            block_theta = self.get_theta_from_vector(to_block)
            off = math.remainder(theta - block_theta, 2 * math.pi)
            if abs(off) >= math.pi / 2 or away * math.cos(off) > distance:
                continue  # the nearest point on the way is where the tool is, or where it goes
            if away * math.sin(abs(off)) < CLEARANCE:
                tangent = math.asin(CLEARANCE / away) if away > CLEARANCE else math.pi / 2 + 0.3
                return block_theta + math.copysign(tangent, off)
        return theta
