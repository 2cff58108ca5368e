"""Push a block onto a target with the tool of an arm that moves in the plane (Florence et al. 2021, section 5).

Lengths are in m, angles in rad. The table's top is z = 0, the arm stands on the origin and looks along x.
"""

import enum
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.env.block_pushing.utils import utils_pybullet
from diffusion_policy.env.block_pushing.utils.pose3d import Pose3d
from diffusion_policy.env.block_pushing.utils.utils_pybullet import ObjState, XarmState
from diffusion_policy.env.block_pushing.utils.xarm_sim_robot import XArmSimRobot

FloatArray = NDArray[np.float64]
Obs = dict[str, NDArray[Any]]
PlanarPose = tuple[float, float, float]

BLOCK_URDF_PATH = utils_pybullet.ASSETS / "block.urdf"
WORKSPACE_URDF_PATH = utils_pybullet.ASSETS / "workspace.urdf"
ZONE_URDF_PATH = utils_pybullet.ASSETS / "zone.urdf"

SIMULATION_FREQUENCY = 240  # Hz
EFFECTOR_HEIGHT = 0.06
EFFECTOR_DOWN_ROTATION = Rotation.from_rotvec([0, math.pi, 0])
EFFECTOR_START = (0.3, -0.4)
WORKSPACE_BOUNDS = np.array(((0.15, -0.5), (0.7, 0.5)))
WORKSPACE_CENTER_X = 0.4
BLOCK_HEIGHT = 0.04
ZONE_HEIGHT = 0.001
BLOCKS_Y, TARGETS_Y = -0.2, 0.2
RANDOM_X_SHIFT = 0.1
RANDOM_Y_SHIFT = 0.15
MAX_ACTION = 0.1

# Near EFFECTOR_START, elbow up: inverse kinematics starts from here.
INITIAL_JOINT_POSITIONS = np.array([-0.925463, 0.699077, -1.106629, 0.000665, 0.398797, -4.063402])  # rad

DEFAULT_CAMERA_POSE = (1.0, 0.0, 0.75)
CAMERA_LOOKS_AT = (0.25, 0.0, 0.0)
IMAGE_WIDTH, IMAGE_HEIGHT = 320, 240
CAMERA_FOCAL_LENGTH = 0.803  # image widths


class BlockTaskVariant(enum.Enum):
    """What Florence et al. ask of the arm; here it pushes."""

    REACH = "Reach"
    REACH_NORMALIZED = "ReachNormalized"
    PUSH = "Push"
    PUSH_NORMALIZED = "PushNormalized"
    INSERT = "Insert"


class BlockPush(gymnasium.Env[Obs, FloatArray]):
    """One block, one target. Action (2,): how far the tool's target moves in x and y, or with `abs_action` where to.

    The observation is a dict of float32: of the block and of the target `*_translation` (2,) and `*_orientation` (1,)
    in [0, pi), of the tool `effector_translation` (2,) and `effector_target_translation` (2,); with `image_size`
    also `rgb` (H, W, 3) uint8. An episode ends, with reward 1, when the block is on the target.

    Args:
        control_frequency: actions per second; a divisor of 240.
        task: `BlockTaskVariant.PUSH`.
        image_size: (H, W) of the image in the observation; None for none.
        shared_memory: simulate in a pybullet server that runs already, for one to look on.
        seed: as for `seed`.
        goal_dist_tolerance: so far from its target's middle a block may stay.
        effector_height: of the flange above the table; None for EFFECTOR_HEIGHT, with the tool's end at 1 cm.
        visuals_mode: 'default'.
        abs_action: actions are positions, not displacements.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    block_urdfs: tuple[Path, ...] = (BLOCK_URDF_PATH,)
    zone_urdfs: tuple[Path, ...] = (ZONE_URDF_PATH,)

    def __init__(
        self,
        control_frequency: float = 10.0,
        task: BlockTaskVariant = BlockTaskVariant.PUSH,
        image_size: tuple[int, int] | None = None,
        shared_memory: bool = False,
        seed: int | None = None,
        goal_dist_tolerance: float = 0.01,
        effector_height: float | None = None,
        visuals_mode: str = "default",
        abs_action: bool = False,
    ) -> None:
        if task is not BlockTaskVariant.PUSH:
            raise ValueError(f"task is {task}, expected BlockTaskVariant.PUSH: the others are not here.")
        if visuals_mode != "default":
            raise ValueError(f"visuals_mode is {visuals_mode!r}, expected 'default'.")
        self._n_substeps = _substeps(control_frequency)
        self._control_frequency = control_frequency
        self._image_size = image_size
        self._effector_height = EFFECTOR_HEIGHT if effector_height is None else effector_height
        self.goal_dist_tolerance = goal_dist_tolerance
        self.abs_action = abs_action
        self.observation_space: spaces.Space[Any] = self._create_observation_space()
        self.action_space: spaces.Space[Any] = self._create_action_space()
        self.seed(seed)
        mode = utils_pybullet.pybullet.SHARED_MEMORY if shared_memory else utils_pybullet.pybullet.DIRECT
        self._pybullet_client: Any = utils_pybullet.BulletClient(mode)
        self._connection_mode = mode
        self._setup_pybullet_scene()

    # ---- gymnasium's interface

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Sets what the next resets draw from; None draws a seed from the system."""
        self._rng = np.random.RandomState(seed)
        return [seed]

    def reset(
        self, reset_poses: bool = True, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Starts an episode: as `seed` says, else as the last seed's draws go on.

        Args:
            reset_poses: without, all stays where it is (after `set_pybullet_state`).
        """
        super().reset(seed=seed)
        if seed is not None:
            self.seed(seed)
        if reset_poses:
            self._setup_pybullet_scene()
        state = self.compute_state()
        self._start_scoring(state)
        return state, self._get_info()

    def step(self, action: ArrayLike) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Moves the tool's target within WORKSPACE_BOUNDS, and lets one control period pass."""
        target = _checked_action(action)
        if not self.abs_action:
            target = target + self._target_effector_pose.translation[:2]
        self._set_robot_target(np.clip(target, *WORKSPACE_BOUNDS))
        self._simulate(self._n_substeps)
        state = self.compute_state()
        return state, self._get_reward(state), self.succeeded, False, self._get_info()

    def render(self, mode: str = "rgb_array") -> NDArray[np.uint8]:
        """What the camera sees, `(H, W, 3)`."""
        if mode != "rgb_array":
            raise ValueError(f"render mode is {mode!r}, expected 'rgb_array'.")
        return self._render_camera(self._image_size or (IMAGE_HEIGHT, IMAGE_WIDTH))

    def close(self) -> None:
        """Ends the simulation."""
        client, self._pybullet_client = self._pybullet_client, None
        if client is not None and client.isConnected():
            client.disconnect()

    # ---- what is where

    @property
    def pybullet_client(self) -> Any:
        """The simulation: pybullet's functions."""
        return self._pybullet_client

    @property
    def robot(self) -> XArmSimRobot:
        """The arm."""
        return self._robot

    @property
    def workspace_uid(self) -> int:
        """The table's id in the simulation."""
        return self._workspace_uid

    @property
    def target_effector_pose(self) -> Pose3d:
        """Where the arm is driven to."""
        return self._target_effector_pose

    @property
    def target_pose(self) -> Pose3d:
        """Where the (first) block belongs."""
        return self._target_poses[0]

    @property
    def control_frequency(self) -> float:
        """Actions per second."""
        return self._control_frequency

    @property
    def connection_mode(self) -> int:
        """pybullet's DIRECT or SHARED_MEMORY."""
        return self._connection_mode

    @property
    def succeeded(self) -> bool:
        """Whether the block is on its target."""
        return self.goal_distance < self.goal_dist_tolerance

    @property
    def goal_distance(self) -> float:
        """From the block to its target."""
        return self._compute_goal_distance(self.compute_state())

    def get_control_frequency(self) -> float:
        """Actions per second."""
        return self._control_frequency

    def get_goal_translation(self) -> FloatArray:
        """Position of the (first) target, `(3,)`."""
        return self.target_pose.translation

    def set_goal_dist_tolerance(self, val: float) -> None:
        """Sets so far from its target's middle a block may stay."""
        self.goal_dist_tolerance = val

    def get_obj_ids(self) -> list[int]:
        """The blocks' ids in the simulation."""
        return list(self._block_ids)

    def compute_state(self) -> Obs:
        """The observation, now."""
        state: Obs = OrderedDict()
        for i, block in enumerate(self._block_ids):
            position, quaternion = self._pybullet_client.getBasePositionAndOrientation(block)
            _add_planar_pose(state, f"block{_suffix(i)}", position, Rotation.from_quat(quaternion))
        effector = self._robot.forward_kinematics().translation
        state["effector_translation"] = effector[:2].astype(np.float32)
        state["effector_target_translation"] = self._target_effector_pose.translation[:2].astype(np.float32)
        for i, pose in enumerate(self._target_poses):
            _add_planar_pose(state, f"target{_suffix(i)}", pose.translation, pose.rotation)
        if self._image_size is not None:
            state["rgb"] = self._render_camera(self._image_size)
        return state

    # ---- states of the simulator

    def get_pybullet_state(self) -> dict[str, list[ObjState]]:
        """States of `robots`, `robot_end_effectors`, `targets` and `objects`."""
        client, robot = self._pybullet_client, self._robot
        goal = tuple(self.get_goal_translation().tolist())
        return {
            "robots": [XarmState.get_bullet_state(client, robot.xarm, self._target_effector_pose, goal)],
            "robot_end_effectors": [ObjState.get_bullet_state(client, tool) for tool in self._tools],
            "targets": [ObjState.get_bullet_state(client, zone) for zone in self._zone_ids],
            "objects": [ObjState.get_bullet_state(client, block) for block in self._block_ids],
        }

    def set_pybullet_state(self, state: dict[str, list[ObjState]]) -> None:
        """Restores what `get_pybullet_state` returned; what was scored is not part of it: see `reset`."""
        (arm,) = state["robots"]
        assert isinstance(arm, XarmState)
        self._set_bodies(state["robots"], [self._robot.xarm])
        self._set_bodies(state["robot_end_effectors"], self._tools)
        self._set_bodies(state["targets"], self._zone_ids)
        self._set_bodies(state["objects"], self._block_ids)
        self._target_poses = [_pose(*zone.base_pose) for zone in state["targets"]]
        self._target_effector_pose = arm.target_effector_pose
        self._robot.set_target_effector_pose(arm.target_effector_pose)

    def step_simulation_to_stabilize(self, nsteps: int = 100) -> None:
        """Lets what was placed come to rest."""
        self._simulate(nsteps)

    def calc_camera_params(self, image_size: tuple[int, int]) -> tuple[list[float], list[float]]:
        """View and projection matrices, as pybullet takes them, for an image of (H, W)."""
        client = self._pybullet_client
        height, width = image_size
        field_of_view = math.degrees(2 * math.atan(height / 2 / (CAMERA_FOCAL_LENGTH * width)))
        view = client.computeViewMatrix(DEFAULT_CAMERA_POSE, CAMERA_LOOKS_AT, (0, 0, 1))
        return view, client.computeProjectionMatrixFOV(field_of_view, width / height, 0.01, 10.0)

    # ---- what a task says

    def _draw_block_poses(self) -> list[PlanarPose]:
        """Where the blocks start: x, y, angle."""
        return [self._draw_block_pose()]

    def _draw_target_poses(self) -> list[PlanarPose]:
        """Where the targets are: x, y, angle."""
        return [self._draw_target_pose(0.0)]

    def _start_scoring(self, state: Obs) -> None:
        """Forgets what was scored."""

    def _get_reward(self, state: Obs) -> float:
        return float(self._compute_goal_distance(state) < self.goal_dist_tolerance)

    def _get_info(self) -> dict[str, Any]:
        return {}

    # ---- draws

    def _draw_block_pose(self) -> PlanarPose:
        """Around (0.4, -0.2). Its angle is in (1, pi], as in the original: 1 stands where pi was meant to end."""
        x = WORKSPACE_CENTER_X + self._rng.uniform(-RANDOM_X_SHIFT, RANDOM_X_SHIFT)
        y = BLOCKS_Y + self._rng.uniform(-RANDOM_Y_SHIFT, RANDOM_Y_SHIFT)
        return x, y, self._rng.uniform(math.pi, 1.0)

    def _draw_target_pose(self, shift_x: float) -> PlanarPose:
        """Within 5 % of the blocks' spread around (0.4 + shift_x, 0.2), nearly straight."""
        x = WORKSPACE_CENTER_X + self._rng.uniform(-0.05 * RANDOM_X_SHIFT, 0.05 * RANDOM_X_SHIFT) + shift_x
        y = TARGETS_Y + self._rng.uniform(-0.05 * RANDOM_Y_SHIFT, 0.05 * RANDOM_Y_SHIFT)
        return x, y, math.pi + self._rng.uniform(-math.pi / 30, math.pi / 30)

    # ---- scene

    def _setup_pybullet_scene(self) -> None:
        """Builds all anew: pybullet's own restoring of a state keeps traces of earlier episodes."""
        client = self._pybullet_client
        client.resetSimulation()
        client.setPhysicsEngineParameter(enableFileCaching=0, deterministicOverlappingPairs=1)
        client.setTimeStep(1.0 / SIMULATION_FREQUENCY)
        client.setGravity(0, 0, -9.8)
        self._workspace_uid = utils_pybullet.load_urdf(client, WORKSPACE_URDF_PATH, useFixedBase=True)
        self._robot = XArmSimRobot(client, INITIAL_JOINT_POSITIONS, end_effector="cylinder")
        self._tools = [] if self._robot.end_effector is None else [self._robot.end_effector]
        self._zone_ids = [utils_pybullet.load_urdf(client, path, useFixedBase=True) for path in self.zone_urdfs]
        self._block_ids = [utils_pybullet.load_urdf(client, path) for path in self.block_urdfs]
        self._set_robot_target(EFFECTOR_START)
        self._reset_object_poses()
        self.step_simulation_to_stabilize()

    def _reset_object_poses(self) -> None:
        """Draws where blocks and targets are, and puts them there."""
        blocks, targets = self._draw_block_poses(), self._draw_target_poses()
        self._target_poses = [_planar(pose, ZONE_HEIGHT / 2) for pose in targets]
        placed = zip(self._block_ids, [_planar(pose, BLOCK_HEIGHT / 2) for pose in blocks], strict=True)
        for body, pose in [*placed, *zip(self._zone_ids, self._target_poses, strict=True)]:
            self._pybullet_client.resetBasePositionAndOrientation(body, pose.translation, pose.rotation.as_quat())

    def _set_bodies(self, states: list[ObjState], ids: list[Any]) -> None:
        for state, body in zip(states, ids, strict=True):
            state.set_bullet_state(self._pybullet_client, body)

    def _set_robot_target(self, translation: ArrayLike) -> None:
        position = np.array([*np.asarray(translation, dtype=np.float64), self._effector_height])
        self._target_effector_pose = Pose3d(rotation=EFFECTOR_DOWN_ROTATION, translation=position)
        self._robot.set_target_effector_pose(self._target_effector_pose)

    def _simulate(self, n_substeps: int) -> None:
        for _ in range(n_substeps):
            self._pybullet_client.stepSimulation()

    def _compute_goal_distance(self, state: Obs) -> float:
        return float(np.linalg.norm(state["block_translation"] - state["target_translation"]))

    def _render_camera(self, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        height, width = image_size
        view, projection = self.calc_camera_params(image_size)
        client = self._pybullet_client
        image = client.getCameraImage(
            width,
            height,
            viewMatrix=view,
            projectionMatrix=projection,
            renderer=client.ER_TINY_RENDERER,
            flags=client.ER_NO_SEGMENTATION_MASK,
        )
        return np.ascontiguousarray(np.reshape(image[2], (height, width, 4))[..., :3], dtype=np.uint8)

    # ---- spaces

    def _create_action_space(self) -> spaces.Box:
        low, high = WORKSPACE_BOUNDS if self.abs_action else (np.full(2, -MAX_ACTION), np.full(2, MAX_ACTION))
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def _create_observation_space(self) -> spaces.Dict:
        """In the order of the published demonstrations' columns."""
        space: OrderedDict[str, spaces.Space[Any]] = OrderedDict()
        for i in range(len(self.block_urdfs)):
            space.update(_planar_pose_space(f"block{_suffix(i)}"))
        bounds = spaces.Box(
            (WORKSPACE_BOUNDS[0] - 0.1).astype(np.float32), (WORKSPACE_BOUNDS[1] + 0.1).astype(np.float32)
        )
        space["effector_translation"] = space["effector_target_translation"] = bounds
        for i in range(len(self.zone_urdfs)):
            space.update(_planar_pose_space(f"target{_suffix(i)}"))
        if self._image_size is not None:
            space["rgb"] = spaces.Box(0, 255, (*self._image_size, 3), np.uint8)
        return spaces.Dict(space)


def _suffix(i: int) -> str:
    """What follows the name of the first, second, ... block or target."""
    return "" if i == 0 else str(i + 1)


def _planar_pose_space(name: str) -> dict[str, spaces.Space[Any]]:
    return {
        f"{name}_translation": spaces.Box(-5, 5, (2,), np.float32),
        f"{name}_orientation": spaces.Box(0, np.float32(math.pi), (1,), np.float32),
    }


def _add_planar_pose(state: Obs, name: str, position: ArrayLike, rotation: Rotation) -> None:
    """The angle is that of the x axis, modulo half a turn, which changes neither a block nor a target."""
    x_axis = rotation.apply((1.0, 0.0, 0.0))
    angle = np.float32(math.atan2(x_axis[1], x_axis[0]) % math.pi)
    state[f"{name}_translation"] = np.asarray(position, dtype=np.float32)[:2]
    state[f"{name}_orientation"] = np.array([angle])


def _planar(pose: PlanarPose, height: float) -> Pose3d:
    x, y, angle = pose
    return Pose3d(rotation=Rotation.from_rotvec([0, 0, angle]), translation=np.array([x, y, height]))


def _pose(position: ArrayLike, quaternion: ArrayLike) -> Pose3d:
    return Pose3d(rotation=Rotation.from_quat(quaternion), translation=np.array(position))


def _substeps(control_frequency: float) -> int:
    n_substeps = round(SIMULATION_FREQUENCY / control_frequency) if control_frequency > 0 else 0
    if n_substeps < 1 or not math.isclose(n_substeps * control_frequency, SIMULATION_FREQUENCY):
        raise ValueError(f"control_frequency is {control_frequency} Hz, expected a divisor of {SIMULATION_FREQUENCY}.")
    return n_substeps


def _checked_action(action: ArrayLike) -> FloatArray:
    array = np.asarray(action, dtype=np.float64)
    if array.shape != (2,) or not np.isfinite(array).all():
        raise ValueError(f"got an action {array} of shape {array.shape}, expected two finite numbers (x, y)")
    return array
