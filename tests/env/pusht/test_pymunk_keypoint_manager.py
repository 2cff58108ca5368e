import numpy as np
import pytest

from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.pymunk_keypoint_manager import PymunkKeypointManager, farthest_point_sampling


@pytest.fixture
def manager():
    return PymunkKeypointManager.create_from_pusht_env(PushTEnv())


@pytest.mark.parametrize("name", ["block", "agent"])
def test_standard_keypoints_are_the_originals(original, manager, name):
    np.testing.assert_array_equal(manager.local_keypoint_map[name], original[f"out/local_keypoint_map/{name}"])
    np.testing.assert_array_equal(manager.color_map[name], original[f"out/color_map/{name}"])


def test_other_keypoints():
    few = PymunkKeypointManager.create_from_pusht_env(PushTEnv(), n_block_kps=4, n_agent_kps=1, seed=3)
    block = few.local_keypoint_map["block"]
    assert block.shape == (4, 2)
    assert few.local_keypoint_map["agent"].shape == (1, 2)
    assert (np.abs(block - [0, 60]) <= [63, 63]).all()
    distances = np.linalg.norm(block[:, None] - block, axis=-1)[np.triu_indices(4, 1)]
    assert distances.min() > 50


def test_poses_and_bodies_give_the_same_keypoints(manager):
    env = PushTEnv()
    env.reset(seed=2)
    pose = [*env.block.position, env.block.angle]
    from_pose = manager.get_keypoints_global({"block": pose})["block"]
    from_body = manager.get_keypoints_global({"block": env.block}, is_obj=True)["block"]
    np.testing.assert_array_equal(from_pose, from_body)
    expected = [env.block.local_to_world(tuple(p)) for p in manager.local_keypoint_map["block"]]
    np.testing.assert_allclose(from_pose, expected, atol=1e-9)


def test_drawing(manager):
    image = np.zeros((128, 256, 3), dtype=np.uint8)
    drawn = manager.draw_keypoints_pose(image, {"agent": (256, 256, 0)}, radius=0)
    assert drawn is image
    points = manager.get_keypoints_global({"agent": (256, 256, 0)})["agent"]
    pixels = {(int(y / 4), int(x / 2)) for x, y in points}
    assert {tuple(p) for p in np.argwhere(image.any(axis=-1)).tolist()} == pixels
    assert image[next(iter(pixels))].tolist() == [255, 127, 14]


def test_kwargs_rebuild_it(manager):
    again = PymunkKeypointManager(**manager.kwargs)
    assert again.kwargs == manager.kwargs


def test_farthest_point_sampling():
    points = np.array([[0, 0], [1, 0], [10, 0], [4, 0]])
    np.testing.assert_array_equal(farthest_point_sampling(points, 3, init_idx=1), [[1, 0], [10, 0], [4, 0]])
