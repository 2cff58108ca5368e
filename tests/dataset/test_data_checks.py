import numpy as np
import pytest

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.shape_meta import ShapeMeta
from diffusion_policy.dataset.data_checks import check_finite, check_shape_meta

STORED = {"front": (48, 64, 3), "joints": (7,), "action": (6,)}


def _shape_meta(front=(3, 48, 64), action=(6,), **more):
    obs = {"front": {"shape": front, "type": "rgb"}, "joints": {"shape": [7], "type": "low_dim"}, **more}
    return ShapeMeta.parse({"obs": obs, "action": {"shape": action}})


def _buffer(**data):
    n_steps = len(next(iter(data.values())))
    return ReplayBuffer({"data": data, "meta": {"episode_ends": np.array([4, n_steps])}})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(value):
    joints = np.zeros((10, 7))
    joints[6, 2] = value
    with pytest.raises(ValueError, match=r"demo.zarr: 'joints' has NaN .*, first at step 6 \(episode 1\)"):
        check_finite(_buffer(bytes=np.zeros((10, 2), np.uint8), joints=joints), "demo.zarr")


def test_bytes_are_finite():
    check_finite(_buffer(img=np.zeros((10, 2), np.uint8), joints=np.zeros((10, 7))), "demo.zarr")


def test_data_that_are_as_shape_meta_says():
    check_shape_meta(_shape_meta(), STORED, "demo.zarr")


def test_a_missing_camera_is_named():
    wrist = {"shape": [3, 48, 64], "type": "rgb"}
    with pytest.raises(ValueError, match=r"demo.zarr: .* camera 'wrist', which .* lacks; it has \['front', 'joints'\]"):
        check_shape_meta(_shape_meta(wrist=wrist), STORED, "demo.zarr")
    with pytest.raises(ValueError, match="observation 'gripper', which"):
        check_shape_meta(_shape_meta(gripper={"shape": [2]}), STORED, "demo.zarr")


def test_another_shape_is_named():
    with pytest.raises(
        ValueError,
        match=r"'front' has steps of shape \[48, 64, 3\], but shape_meta.obs.front.shape is \[3, 64, 48\], which is "
        r"stored as \[64, 48, 3\]",
    ):
        check_shape_meta(_shape_meta(front=(3, 64, 48)), STORED, "demo.zarr")
    with pytest.raises(ValueError, match=r"'action' has steps of shape \[6\], but shape_meta.action.shape is \[10\]:"):
        check_shape_meta(_shape_meta(action=(10,)), STORED, "demo.zarr")
