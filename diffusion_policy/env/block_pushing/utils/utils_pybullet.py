"""The physics simulator: connections to it, models in it, states of what is in it."""

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diffusion_policy.env.block_pushing.utils.pose3d import Pose3d

try:
    import pybullet
except ImportError as error:
    raise ImportError(
        "Block pushing needs pybullet: pip install 'diffusion_policy[sim]'. That has no builds for Python 3.12 and "
        "later: there pip compiles it, which takes a C++ compiler and some minutes (pip install pybullet)."
    ) from error

Vec3 = tuple[float, float, float]
Vec4 = tuple[float, float, float, float]

ASSETS = Path(__file__).resolve().parents[1] / "assets"


class BulletClient:
    """One connection to the simulator: pybullet's functions and constants, without `physicsClientId`.

    Args:
        connection_mode: pybullet's DIRECT, for a simulation of one's own in this process, or SHARED_MEMORY, for that
            of a server which runs already.

    Raises:
        ConnectionError: there is no such server.
    """

    def __init__(self, connection_mode: int = pybullet.DIRECT) -> None:
        self._client_id = pybullet.connect(connection_mode)
        if self._client_id < 0:
            hint = "start a server (python -m pybullet_utils.runServer) or pass shared_memory=False"
            raise ConnectionError(f"pybullet does not connect: {hint}.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not of pybullet; also while a copy or a pickle is made
            raise AttributeError(name)
        attribute = getattr(pybullet, name)
        if inspect.isbuiltin(attribute):
            attribute = functools.partial(attribute, physicsClientId=self._client_id)
        self.__dict__[name] = attribute
        return attribute


def load_urdf(pybullet_client: BulletClient, file_path: str | Path, *args: Any, **kwargs: Any) -> int:
    """Adds a model and returns its id; further arguments are those of pybullet's `loadURDF`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(file_path).is_file():
        raise FileNotFoundError(f"No model at {file_path}.")
    return pybullet_client.loadURDF(str(file_path), *args, **kwargs)


@dataclass
class ObjState:
    """State of one body.

    Attributes:
        obj_id: its id in the simulation where it was read.
        base_pose: position (m) and quaternion (x, y, z, w).
        base_vel: linear (m/s) and angular (rad/s) velocity.
        joint_info: indices of its movable joints.
        joint_state: position (rad) and velocity (rad/s) of each of them.
    """

    obj_id: int
    base_pose: tuple[Vec3, Vec4]
    base_vel: tuple[Vec3, Vec3]
    joint_info: Any
    joint_state: Any

    @classmethod
    def get_bullet_state(cls, client: BulletClient, obj_id: int) -> Self:
        """Reads the state of a body."""
        return cls(**_read(client, obj_id))

    def set_bullet_state(self, client: BulletClient, obj_id: int) -> None:
        """Puts a body of the same model into this state."""
        client.resetBasePositionAndOrientation(obj_id, *self.base_pose)
        client.resetBaseVelocity(obj_id, *self.base_vel)
        for joint, (position, velocity) in zip(self.joint_info, self.joint_state, strict=True):
            client.resetJointState(obj_id, joint, position, velocity)

    def serialize(self) -> dict[str, Any]:
        """Its values, as JSON takes them."""
        return dict(vars(self))

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Of what `serialize` returned, or of that read back from JSON."""
        return cls(**{key: _as_tuples(value) for key, value in data.items()})


@dataclass
class XarmState(ObjState):
    """State of the arm, and where it is going.

    Attributes:
        target_effector_pose: what its motors drive to.
        goal_translation: `(3,)`, m, of the task's first target.
    """

    target_effector_pose: Pose3d
    goal_translation: Vec3 | None

    @classmethod
    def get_bullet_state(  # type: ignore[override]
        cls, client: BulletClient, obj_id: int, target_effector_pose: Pose3d, goal_translation: Vec3 | None
    ) -> Self:
        """Reads the state of an arm."""
        state = _read(client, obj_id)
        return cls(**state, target_effector_pose=target_effector_pose, goal_translation=goal_translation)

    def serialize(self) -> dict[str, Any]:
        """Its values, as JSON takes them."""
        return {**vars(self), "target_effector_pose": self.target_effector_pose.serialize()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        """Of what `serialize` returned, or of that read back from JSON."""
        values = {key: _as_tuples(value) for key, value in data.items()}
        return cls(**{**values, "target_effector_pose": Pose3d.deserialize(data["target_effector_pose"])})


def _read(client: BulletClient, obj_id: int) -> dict[str, Any]:
    joints = range(client.getNumJoints(obj_id))
    movable = tuple(joint for joint in joints if client.getJointInfo(obj_id, joint)[2] != client.JOINT_FIXED)
    return {
        "obj_id": obj_id,
        "base_pose": client.getBasePositionAndOrientation(obj_id),
        "base_vel": client.getBaseVelocity(obj_id),
        "joint_info": movable,
        "joint_state": tuple(client.getJointState(obj_id, joint)[:2] for joint in movable),
    }


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value
