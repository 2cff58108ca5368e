from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.env.block_pushing.block_pushing import EFFECTOR_DOWN_ROTATION, INITIAL_JOINT_POSITIONS
from diffusion_policy.env.block_pushing.utils.pose3d import Pose3d
from diffusion_policy.env.block_pushing.utils.utils_pybullet import BulletClient, load_urdf
from diffusion_policy.env.block_pushing.utils.xarm_sim_robot import XArmSimRobot


@pytest.fixture
def client() -> Iterator[Any]:
    client = BulletClient()
    yield client
    client.disconnect()


def test_kinematics_are_those_of_an_xarm6(client: Any) -> None:
    robot = XArmSimRobot(client, np.zeros(6))
    # All joints at zero: the flange at 207 mm before the base's axis, 112 mm up, looking down (xArm6 user manual).
    np.testing.assert_allclose(robot.forward_kinematics().translation, (0.207, 0, 0.112), atol=1e-4)
    np.testing.assert_allclose(robot.forward_kinematics().rotation.apply((0, 0, 1)), (0, 0, -1), atol=1e-6)
    robot.reset_joints([np.pi / 2, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(robot.forward_kinematics().translation, (0, 0.207, 0.112), atol=1e-4)


def test_arm_goes_where_inverse_kinematics_says_and_its_tool_with_it(client: Any) -> None:
    robot = XArmSimRobot(client, INITIAL_JOINT_POSITIONS, end_effector="cylinder")
    goal = Pose3d(rotation=EFFECTOR_DOWN_ROTATION, translation=np.array((0.4, -0.2, 0.06)))
    robot.set_target_effector_pose(goal)
    for _ in range(240):
        client.stepSimulation()
    reached = robot.forward_kinematics()
    np.testing.assert_allclose(reached.translation, goal.translation, atol=1e-3)
    assert (reached.rotation * goal.rotation.inv()).magnitude() < 0.01
    tool = client.getAABB(robot.end_effector)
    np.testing.assert_allclose(np.mean(tool, axis=0)[:2], (0.4, -0.2), atol=2e-3)
    assert tool[0][2] == pytest.approx(0.01, abs=0.003)
    positions, velocities, torques = robot.get_joints_measured()
    np.testing.assert_array_equal(positions, robot.get_joint_positions())
    np.testing.assert_allclose(velocities, 0, atol=1e-3)
    assert torques.shape == (6,)


def test_joint_velocities(client: Any) -> None:
    robot = XArmSimRobot(client)
    before = robot.get_joint_positions()
    robot.set_target_joint_velocities([0.5, 0, 0, 0, 0, 0])
    for _ in range(240):
        client.stepSimulation()
    np.testing.assert_allclose(robot.get_joint_positions() - before, [0.5, 0, 0, 0, 0, 0], atol=0.02)


def test_looks_of_the_arm(client: Any) -> None:
    robot = XArmSimRobot(client, color=(1, 0, 0, 1))
    robot.set_alpha_transparency(0.25)
    colors = {shape[7] for shape in client.getVisualShapeData(robot.xarm)}
    assert colors == {(1.0, 0.0, 0.0, 0.25)}


def test_bad_arguments_are_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="'cylinder', 'none'"):
        XArmSimRobot(client, end_effector="suction")
    with pytest.raises(ValueError, match="four numbers"):
        XArmSimRobot(client, color="red")
    with pytest.raises(FileNotFoundError, match=r"absent\.urdf"):
        load_urdf(client, "absent.urdf")


def test_poses_compare_and_serialize() -> None:
    pose = Pose3d(rotation=Rotation.from_rotvec([0, 0, 1.0]), translation=np.array((1.0, 2.0, 3.0)))
    same = Pose3d.deserialize(pose.serialize())
    assert same == pose
    assert same != Pose3d(rotation=pose.rotation, translation=np.zeros(3))
    assert pose.asdict()["translation"] is pose.translation
    np.testing.assert_allclose(pose.vec7, [1, 2, 3, 0, 0, np.sin(0.5), np.cos(0.5)])
