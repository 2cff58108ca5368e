"""The arm in the simulator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.env.block_pushing.utils import utils_pybullet
from diffusion_policy.env.block_pushing.utils.pose3d import Pose3d

FloatArray = NDArray[np.float64]

XARM_URDF_PATH = utils_pybullet.ASSETS / "xarm6.urdf"
CYLINDER_URDF_PATH = utils_pybullet.ASSETS / "cylinder.urdf"
TOOLS = {"none": None, "cylinder": CYLINDER_URDF_PATH}
HOME_JOINT_POSITIONS = np.deg2rad([0, -20, -80, 0, 100, -30])
MAX_TORQUE = 1200.0  # N m: the motors are never what keeps the arm from its target


class XArmSimRobot:
    """An xArm6 on the origin, its six joints driven by position or velocity.

    Args:
        pybullet_client: the simulation.
        initial_joint_positions: `(6,)`, rad.
        end_effector: what hangs from the flange: 'cylinder' or 'none'.
        color: 'default', or a colour (r, g, b, a) in [0, 1] of all links.

    Attributes:
        xarm: the arm's id in the simulation.
        end_effector: the tool's id; None without one.
    """

    def __init__(
        self,
        pybullet_client: Any,
        initial_joint_positions: Sequence[float] | FloatArray = HOME_JOINT_POSITIONS,
        end_effector: str = "none",
        color: str | Sequence[float] = "default",
    ) -> None:
        if end_effector not in TOOLS:
            raise ValueError(f"end_effector is {end_effector!r}, expected one of {sorted(TOOLS)}.")
        self._client = client = pybullet_client
        self.initial_joint_positions = np.asarray(initial_joint_positions, dtype=np.float64)
        self.xarm = utils_pybullet.load_urdf(client, XARM_URDF_PATH, useFixedBase=True)
        joints = range(client.getNumJoints(self.xarm))
        self._joints = [j for j in joints if client.getJointInfo(self.xarm, j)[2] == client.JOINT_REVOLUTE]
        self._flange = self._joints[-1]
        if color != "default":
            self._set_color(color)
        self.reset_joints(self.initial_joint_positions)
        self.end_effector = self._setup_end_effector(end_effector)

    def _setup_end_effector(self, end_effector: str) -> int | None:
        """Fixes the tool to the flange, its origin on the flange's."""
        path = TOOLS[end_effector]
        if path is None:
            return None
        client, flange = self._client, self.forward_kinematics()
        tool = utils_pybullet.load_urdf(client, path, flange.translation, flange.rotation.as_quat())
        offset = client.getDynamicsInfo(tool, -1)[3]  # constraints are placed from the centre of mass
        client.createConstraint(
            self.xarm, self._flange, tool, -1, client.JOINT_FIXED, (0, 0, 0), (0, 0, 0), [-x for x in offset]
        )
        return tool

    def reset_joints(self, joint_values: Sequence[float] | FloatArray) -> None:
        """Puts the joints at `(6,)` rad at once, at rest. A tool follows within the next simulation steps."""
        for joint, value in zip(self._joints, joint_values, strict=True):
            self._client.resetJointState(self.xarm, joint, float(value), 0.0)

    def get_joints_measured(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Positions (rad), velocities (rad/s) and motor torques (N m) of the joints, `(6,)` each."""
        states = self._client.getJointStates(self.xarm, self._joints)
        positions, velocities, _, torques = zip(*states, strict=True)
        return np.array(positions), np.array(velocities), np.array(torques)

    def get_joint_positions(self) -> FloatArray:
        """`(6,)` rad."""
        return self.get_joints_measured()[0]

    def forward_kinematics(self) -> Pose3d:
        """Where the flange is."""
        state = self._client.getLinkState(self.xarm, self._flange, computeForwardKinematics=True)
        return Pose3d(rotation=Rotation.from_quat(state[5]), translation=np.array(state[4]))

    def inverse_kinematics(
        self, world_effector_pose: Pose3d, max_iterations: int = 100, residual_threshold: float = 1e-10
    ) -> FloatArray:
        """Joint positions `(6,)` rad that bring the flange to a pose; nearest to the present ones, by damped steps."""
        return np.array(
            self._client.calculateInverseKinematics(
                self.xarm,
                self._flange,
                world_effector_pose.translation,
                world_effector_pose.rotation.as_quat(),
                maxNumIterations=max_iterations,
                residualThreshold=residual_threshold,
            )
        )

    def set_target_effector_pose(self, world_effector_pose: Pose3d) -> None:
        """Drives the flange to a pose."""
        self.set_target_joint_positions(self.inverse_kinematics(world_effector_pose))

    def set_target_joint_velocities(self, target_joint_velocities: Sequence[float] | FloatArray) -> None:
        """Drives the joints at `(6,)` rad/s."""
        self._drive(self._client.VELOCITY_CONTROL, targetVelocities=target_joint_velocities)

    def set_target_joint_positions(self, target_joint_positions: Sequence[float] | FloatArray) -> None:
        """Drives the joints to `(6,)` rad."""
        self._drive(self._client.POSITION_CONTROL, targetPositions=target_joint_positions)

    def set_alpha_transparency(self, alpha: float) -> None:
        """How opaque the arm is drawn: 1 wholly, 0 not at all."""
        for shape in self._client.getVisualShapeData(self.xarm):
            self._client.changeVisualShape(self.xarm, shape[1], rgbaColor=(*shape[7][:3], alpha))

    def _set_color(self, color: str | Sequence[float]) -> None:
        if isinstance(color, str) or len(color) != 4:
            raise ValueError(f"color is {color!r}, expected 'default' or four numbers (r, g, b, a).")
        for link in range(-1, self._client.getNumJoints(self.xarm)):
            self._client.changeVisualShape(self.xarm, link, rgbaColor=tuple(color))

    def _drive(self, mode: int, **targets: Any) -> None:
        torques = [MAX_TORQUE] * len(self._joints)
        self._client.setJointMotorControlArray(self.xarm, self._joints, mode, forces=torques, **targets)
