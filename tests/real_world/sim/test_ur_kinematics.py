import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.real_world.sim.ur_kinematics import (
    UR5,
    UR5E,
    URModel,
    forward,
    inverse,
    invert,
    matrix_to_pose,
    pose_to_matrix,
)

HOME = np.deg2rad([0, -90, -90, -90, 90, 0])


@pytest.mark.parametrize("angle", [0, 1e-9, 0.5, 3.1, np.pi - 1e-9, np.pi])
def test_poses_and_matrices_are_scipys(angle: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        axis = rng.normal(size=3)
        pose = np.concatenate([rng.normal(size=3), angle * axis / np.linalg.norm(axis)])
        matrix = pose_to_matrix(pose)
        np.testing.assert_allclose(matrix[:3, :3], Rotation.from_rotvec(pose[3:]).as_matrix(), atol=1e-12)
        back = matrix_to_pose(matrix)
        np.testing.assert_allclose(pose_to_matrix(back), matrix, atol=1e-9)
        assert np.linalg.norm(back[3:]) == pytest.approx(angle, abs=1e-7)
        np.testing.assert_allclose(invert(matrix) @ matrix, np.eye(4), atol=1e-12)


def test_the_flange_is_where_the_data_sheet_puts_it() -> None:
    """All joints at zero: stretched along -x, the wrist to -y."""
    pose = matrix_to_pose(forward(UR5, np.zeros(6)))
    np.testing.assert_allclose(pose[:3], [-0.81725, -0.19145, -0.005491], atol=1e-6)
    down = forward(UR5, HOME)
    np.testing.assert_allclose(down[:3, 2], [0, 0, -1], atol=1e-12)  # the tool points down


@pytest.mark.parametrize("model", [UR5, UR5E])
def test_the_inverse_brings_the_flange_there_by_the_nearest_angles(model: URModel) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        q = rng.uniform(-3, 3, size=6)
        near = q + rng.normal(size=6) * 0.01
        found = inverse(model, forward(model, q), near)
        assert found is not None
        np.testing.assert_allclose(forward(model, found), forward(model, q), atol=1e-7)
        assert np.abs(found - near).sum() <= np.abs(q - near).sum() + 1e-5


def test_straight_wrists_keep_their_last_joint() -> None:
    q = np.array([0.1, -1.2, -1.3, -0.5, 0.0, 0.7])
    found = inverse(UR5, forward(UR5, q), q)
    assert found is not None
    np.testing.assert_allclose(found, q, atol=1e-6)


def test_out_of_reach_there_is_none() -> None:
    for position in ([2, 0, 0.3], [0.0, 0.05, 0.3], [0.9, 0.2, 0.3]):
        assert inverse(UR5, pose_to_matrix([*position, 0, np.pi, 0]), HOME) is None
