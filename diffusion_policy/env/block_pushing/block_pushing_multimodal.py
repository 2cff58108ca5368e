"""Push two blocks onto two targets, in any order (Shafiullah et al. 2022, section 4; Chi et al. 2023, section 5).

There are several ways to do it, all of them in the demonstrations: which block first, and onto which target.
"""

from typing import Any

import numpy as np

from diffusion_policy.env.block_pushing import block_pushing
from diffusion_policy.env.block_pushing.block_pushing import (
    BLOCK_URDF_PATH,
    BLOCKS_Y,
    RANDOM_X_SHIFT,
    RANDOM_Y_SHIFT,
    WORKSPACE_CENTER_X,
    ZONE_URDF_PATH,
    BlockTaskVariant,
    Obs,
    PlanarPose,
)
from diffusion_policy.env.block_pushing.utils import utils_pybullet
from diffusion_policy.env.block_pushing.utils.pose3d import Pose3d

BLOCK2_URDF_PATH = utils_pybullet.ASSETS / "block2.urdf"
ZONE2_URDF_PATH = utils_pybullet.ASSETS / "zone2.urdf"

N_BLOCKS = N_TARGETS = 2
MIN_BLOCK_DIST = 0.1
TARGET_SHIFT = 0.12
NUM_RESET_ATTEMPTS = 1000
LENGTH_RATIO = 0.6  # of the workspace, x to y
REACH_DIST = 0.001  # a block that has moved so far was touched
REWARDS = (0.49, 0.51)  # of the first block on a target, of the second: sums of distinct rewards tell how many


class BlockPushEventManager:
    """When each block was first touched, and on which target it first was."""

    def __init__(self) -> None:
        self.reset()

    def reach(self, step: int, block_id: int) -> None:
        """The tool has moved a block, at `step` of the episode (from 1)."""
        self._happened(f"REACH_{block_id}", step)

    def target(self, step: int, block_id: int, target_id: int) -> None:
        """A block is on a target."""
        self._happened(f"TARGET_{block_id}_{target_id}", step)

    def reset(self) -> None:
        """Nothing has happened."""
        reached = [f"REACH_{block}" for block in range(N_BLOCKS)]
        on_target = [f"TARGET_{block}_{target}" for block in range(N_BLOCKS) for target in range(N_TARGETS)]
        self._steps = dict.fromkeys(reached + on_target, -1)

    def get_info(self) -> dict[str, int]:
        """Step of each event, -1 where it has not happened."""
        return dict(self._steps)

    def _happened(self, event: str, step: int) -> None:
        if self._steps[event] < 0:
            self._steps[event] = step


class BlockPushMultimodal(block_pushing.BlockPush):
    """Two blocks, two targets. Flattened, the observation is the 16 columns of the published demonstrations.

    The first block within `goal_dist_tolerance` of a target earns 0.49, the other one, on the other target, 0.51;
    then the episode ends. A block counts once, whatever happens to it later. The info says at which step each block
    was touched first (`REACH_0`, ...) and came to a target (`TARGET_0_1`: the first block, to the second target), or
    -1. Arguments are those of BlockPush.
    """

    block_urdfs = (BLOCK_URDF_PATH, BLOCK2_URDF_PATH)
    zone_urdfs = (ZONE_URDF_PATH, ZONE2_URDF_PATH)

    def __init__(
        self,
        control_frequency: float = 10.0,
        task: BlockTaskVariant = BlockTaskVariant.PUSH,
        image_size: tuple[int, int] | None = None,
        shared_memory: bool = False,
        seed: int | None = None,
        goal_dist_tolerance: float = 0.05,
        abs_action: bool = False,
    ) -> None:
        self._events = BlockPushEventManager()
        self._target_of_block: dict[int, int] = {}
        super().__init__(
            control_frequency=control_frequency,
            task=task,
            image_size=image_size,
            shared_memory=shared_memory,
            seed=seed,
            goal_dist_tolerance=goal_dist_tolerance,
            abs_action=abs_action,
        )

    @property
    def target_poses(self) -> list[Pose3d]:
        """Where the targets are."""
        return self._target_poses

    @property
    def succeeded(self) -> bool:
        """Whether both blocks have come to targets, each to its own."""
        return len(self._target_of_block) == N_BLOCKS

    def _start_scoring(self, state: Obs) -> None:
        self._events.reset()
        self._target_of_block = {}
        self._step = 0
        self._start = _translations(state, "block")

    def _get_reward(self, state: Obs) -> float:
        self._step += 1
        blocks, targets = _translations(state, "block"), _translations(state, "target")
        for block in np.flatnonzero(np.linalg.norm(blocks - self._start, axis=-1) > REACH_DIST).tolist():
            self._events.reach(self._step, block)
        reward = 0.0
        distances = np.linalg.norm(blocks[:, None] - targets, axis=-1)
        for block, target in np.argwhere(distances < self.goal_dist_tolerance).tolist():
            if block not in self._target_of_block and target not in self._target_of_block.values():
                reward += REWARDS[len(self._target_of_block)]
                self._target_of_block[block] = target
                self._events.target(self._step, block, target)
        return reward

    def _get_info(self) -> dict[str, Any]:
        return self._events.get_info()

    def _compute_goal_distance(self, state: Obs) -> float:
        """Mean distance of the blocks to targets, as the better assignment has it."""
        distances = np.linalg.norm(_translations(state, "block")[:, None] - _translations(state, "target"), axis=-1)
        return float(min(np.trace(distances), np.trace(distances[::-1])) / N_BLOCKS)

    def _draw_block_poses(self) -> list[PlanarPose]:
        """The first anywhere, the second at another x: the original compares nothing else."""
        first = self._draw_block_pose()
        for _ in range(NUM_RESET_ATTEMPTS):
            x = WORKSPACE_CENTER_X + self._rng.uniform(-RANDOM_X_SHIFT, RANDOM_X_SHIFT)
            y = BLOCKS_Y + self._rng.uniform(-RANDOM_Y_SHIFT, RANDOM_Y_SHIFT)
            if abs(x - first[0]) > MIN_BLOCK_DIST:
                return [first, (x, y, self._rng.uniform(np.pi, 1.0))]
        return self._draw_block_poses()  # the first is in the very middle, where hardly a place is left

    def _draw_target_poses(self) -> list[PlanarPose]:
        """Side by side; which is on the left is drawn."""
        shift = TARGET_SHIFT * self._rng.choice([-1, 1])
        return [self._draw_target_pose(shift), self._draw_target_pose(-shift)]


class BlockPushHorizontalMultimodal(BlockPushMultimodal):
    """The same with what was along x along y: targets one behind the other at the arm's side."""

    def _draw_block_poses(self) -> list[PlanarPose]:
        return [_turned(pose) for pose in super()._draw_block_poses()]

    def _draw_target_poses(self) -> list[PlanarPose]:
        return [_turned(pose) for pose in super()._draw_target_poses()]


def _turned(pose: PlanarPose) -> PlanarPose:
    """A quarter turn about the middle of the table, which is longer in y: blocks near the arm, targets far from it."""
    x, y, angle = pose
    return WORKSPACE_CENTER_X + LENGTH_RATIO * y, x - WORKSPACE_CENTER_X, angle


def _translations(state: Obs, name: str) -> np.ndarray:
    """Of both blocks, or of both targets, `(2, 2)`."""
    return np.stack([state[f"{name}_translation"], state[f"{name}2_translation"]])
