"""From a request to what the policy sees."""

import cv2
import numpy as np
import pytest
from tiny_policies import SHAPE_META, observation

from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.serving.limits import RequestError
from diffusion_policy.serving.observation_reader import History, ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec

META = ShapeMeta.parse(SHAPE_META)


def reader(n_obs_steps=1, meta=META):
    return ObservationReader(PolicySpec(meta, n_obs_steps, 4, 8), 1_000_000)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def stacked(*steps):
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}


def test_a_single_step_by_the_policys_keys():
    obs = reader().read(observation(0))
    assert {key: value.shape for key, value in obs.items()} == {
        "camera_1": (1, 3, 24, 32),
        "camera_3": (1, 3, 24, 32),
        "robot_eef_pose": (1, 2),
    }
    assert {key: value.dtype for key, value in obs.items()} == {
        "camera_1": np.uint8,
        "camera_3": np.uint8,
        "robot_eef_pose": np.float32,
    }


def test_the_order_of_keys_is_the_policys():
    shuffled = dict(reversed(observation(0).items()))
    assert list(reader().read(shuffled)) == ["camera_1", "camera_3", "robot_eef_pose"]


def test_short_names_are_cameras_in_order_and_the_state():
    own = observation(0)
    short = {
        "observation/image": own["camera_1"],
        "observation/image_1": own["camera_3"],
        "observation/state": own["robot_eef_pose"],
    }
    assert equal(reader().read(short), reader().read(own))
    assert PolicySpec(META, 1, 4, 8).metadata()["observation_keys"] == {
        "observation/image": ["camera_1"],
        "observation/image_1": ["camera_3"],
        "observation/state": ["robot_eef_pose"],
    }


def test_the_state_of_several_sensors_is_their_values_side_by_side():
    obs = {"pos": {"shape": [3]}, "quat": {"shape": [4]}, "gripper": {"shape": [1]}}
    several = reader(meta=ShapeMeta.parse({"obs": obs, "action": {"shape": [2]}}))
    seen = several.read({"observation/state": np.arange(8)})
    assert {key: value.tolist() for key, value in seen.items()} == {
        "pos": [[0, 1, 2]],
        "quat": [[3, 4, 5, 6]],
        "gripper": [[7]],
    }
    with pytest.raises(RequestError, match="expected 8 numbers: pos, quat, gripper"):
        several.read({"observation/state": np.arange(7)})


def test_stacked_steps_are_those_one_by_one():
    steps = [observation(0), observation(1)]
    singles = [reader(2).read(step) for step in steps]
    both = {key: np.concatenate([single[key] for single in singles]) for key in singles[0]}
    assert equal(reader(2).read(stacked(*steps)), both)


def test_jpegs_alone_and_in_a_list():
    step = observation(0)
    packed = {key: cv2.imencode(".jpg", step[key])[1].tobytes() for key in ("camera_1", "camera_3")}
    one = reader().read({**step, **packed})
    two = reader(2).read({**stacked(step, step), **{key: [value] * 2 for key, value in packed.items()}})
    for key in packed:
        assert np.array_equal(two[key], np.concatenate([one[key]] * 2))


def test_finished_images_pass_as_they_are():
    image = np.random.default_rng(0).random((3, 24, 32), dtype=np.float32)
    seen = reader().read({**observation(0), "camera_1": image})
    assert np.array_equal(seen["camera_1"][0], image)


def test_of_a_pose_in_space_a_planar_policy_sees_x_and_y():
    pose = np.arange(6, dtype=np.float64)
    seen = reader().read({**observation(0), "robot_eef_pose": pose})["robot_eef_pose"]
    assert seen.tolist() == [[0, 1]]


IMAGE = observation(0)["camera_1"]
BAD = {
    "nothing": ({}, "lacks camera_1, camera_3, robot_eef_pose; it has nothing"),
    "missing camera": ({"camera_1": None}, "lacks camera_1; it has camera_3, robot_eef_pose"),
    "unknown key": ({"prompt": "fold"}, "unknown key 'prompt'; this policy observes camera_1"),
    "twice": ({"observation/image": IMAGE}, "camera_1 is given twice"),
    "channels first": ({"camera_1": np.zeros((3, 48, 64), np.uint8)}, r"camera_1: .*expected \(H, W, 3\)"),
    "two dimensions": ({"camera_1": IMAGE[0]}, r"camera_1: shape \(64, 3\) of uint8, expected an image \(H, W, 3\)"),
    "double": ({"camera_1": IMAGE / 255}, "float64, expected an image"),
    "other size in float": ({"camera_1": np.zeros((3, 48, 64), np.float32)}, r"expected \(3, 24, 32\) of an image"),
    "float beyond 1": ({"camera_1": np.full((3, 24, 32), 255, np.float32)}, r"outside \[0, 1\]"),
    "float NaN": ({"camera_1": np.full((3, 24, 32), np.nan, np.float32)}, r"outside \[0, 1\], or NaN"),
    "text": ({"camera_1": "image.png"}, "camera_1: str of 9, expected an image"),
    "map": ({"camera_1": {"data": 1}}, "camera_1: dict of 1, expected an image"),
    "bytes that are no JPEG": ({"camera_1": b"GIF89a"}, "camera_1: 6 bytes that are no JPEG"),
    "three steps": ({"camera_1": np.stack([IMAGE] * 3)}, "camera_1: 3 steps, expected one observation or 2 stacked"),
    "no steps": ({"camera_1": []}, "camera_1: 0 steps"),
    "list of numbers": ({"camera_1": [1, 2]}, "camera_1: list of 2, expected an image"),
    "mixed": ({"camera_1": np.stack([IMAGE] * 2)}, "single and stacked observations"),
    "short vector": ({"robot_eef_pose": np.zeros(1)}, r"robot_eef_pose: shape \(1,\) of float64, expected 2 numbers"),
    "list for a vector": ({"robot_eef_pose": [0.0, 1.0]}, r"list of 2, expected numbers \(2,\), or \(2, 2\)"),
    "flags": ({"robot_eef_pose": np.array([True, False])}, "of bool, expected numbers"),
    "NaN": ({"robot_eef_pose": np.array([0, np.nan])}, "robot_eef_pose: .* with NaN or infinite"),
    "too large for float32": ({"robot_eef_pose": np.array([0, 1e300])}, "with NaN or infinite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_observations_are_refused_by_name(name):
    change, reason = BAD[name]
    given = {} if name == "nothing" else {**observation(0), **change}
    with pytest.raises(RequestError, match=reason):
        reader(2).read({key: value for key, value in given.items() if value is not None})


def test_history_is_that_of_training():
    def step(value):
        return {"state": np.full((1, 2), value, np.float32)}

    def seen(obs):
        return obs["state"][:, 0].tolist()

    history = History(3)
    assert seen(history.add(step(1))) == [1, 1, 1]
    assert seen(history.add(step(2))) == [1, 1, 2]
    assert seen(history.add(step(3))) == [1, 2, 3]
    assert seen(history.add(step(4))) == [2, 3, 4]
    history.clear()
    assert seen(history.add(step(5))) == [5, 5, 5]
    assert seen(history.add({"state": np.array([[6, 6], [7, 7], [8, 8]])})) == [6, 7, 8]
    assert seen(history.add(step(9))) == [7, 8, 9]


def test_bytes_and_finished_images_of_one_episode_become_one():
    history = History(2)
    history.add({"camera": np.full((1, 3, 2, 2), 51, np.uint8)})
    both = history.add({"camera": np.full((1, 3, 2, 2), 0.4, np.float32)})["camera"]
    assert both.dtype == np.float32
    assert both[:, 0, 0, 0].tolist() == [np.float32(51) / 255, np.float32(0.4)]
