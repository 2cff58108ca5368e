import numpy as np
import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.common.rotation_transformer import RotationTransformer

REPRESENTATIONS = ("axis_angle", "quaternion", "rotation_6d", "matrix")
INPUTS = {"quaternion": "quaternion_wxyz"}
EULER = [("euler_angles", "matrix", "XYZ", None), ("matrix", "euler_angles", None, "ZYX")]


@pytest.fixture(scope="module")
def rotations(compat):
    return load_fixture(compat, "l_rotation").arrays


def test_conversions_equal_those_of_pytorch3d(rotations):
    pairs = [key for key in rotations if key.startswith("out/") and key.endswith("/forward")]
    checked = 0
    for key in pairs:
        from_rep, to_rep = key.split("/")[-2].split("->")
        if from_rep not in REPRESENTATIONS or to_rep not in REPRESENTATIONS or key.startswith("out/pytorch3d"):
            continue
        transformer = RotationTransformer(from_rep, to_rep)
        x = rotations[f"in/{INPUTS.get(from_rep, from_rep)}"]
        # pytorch3d 0.7.9 gives quaternions a real part of at least 0, as we do; 0.7.0 either of the two
        expected = rotations.get(key.replace("out/", "out/pytorch3d_0.7.9/"), rotations[key])
        np.testing.assert_allclose(transformer.forward(x), expected, atol=1e-6)
        back = key.replace("/forward", "/inverse_of_forward")
        expected = rotations.get(back.replace("out/", "out/pytorch3d_0.7.9/"), rotations[back])
        np.testing.assert_allclose(transformer.inverse(transformer.forward(x)), expected, atol=1e-6)
        checked += 1
    assert checked >= 8


def test_euler_angles_equal_those_of_pytorch3d(rotations):
    transformer = RotationTransformer("euler_angles", "matrix", from_convention="XYZ")
    np.testing.assert_allclose(transformer.forward(rotations["in/euler"]), rotations["out/euler_XYZ->matrix/forward"])
    back = transformer.inverse(rotations["out/euler_XYZ->matrix/forward"])
    np.testing.assert_allclose(back, rotations["out/euler_XYZ->matrix/inverse_of_forward"], atol=1e-9)
    transformer = RotationTransformer("matrix", "euler_angles", to_convention="ZYX")
    matrices = rotations["out/euler_XYZ->matrix/forward"]
    np.testing.assert_allclose(transformer.forward(matrices), rotations["out/matrix->euler_ZYX/forward"], atol=1e-9)


@pytest.mark.parametrize("convention", ["XYZ", "ZYX", "YXZ", "ZXZ", "XYX", "YZY", "XZY", "XZX"])
def test_euler_angles_return_to_the_same_rotation(convention):
    angles = torch.rand(20, 3, dtype=torch.float64) * 6 - 3
    transformer = RotationTransformer("euler_angles", "matrix", from_convention=convention)
    matrices = transformer.forward(angles)
    torch.testing.assert_close(transformer.forward(transformer.inverse(matrices)), matrices)


def test_six_numbers_of_noise_are_a_rotation(rotations):
    matrices = RotationTransformer("rotation_6d", "matrix").forward(rotations["in/rotation_6d_noisy"])
    np.testing.assert_allclose(matrices, rotations["out/rotation_6d_noisy->matrix/forward"], atol=1e-9)


def test_type_and_dtype_are_kept(rotations):
    transformer = RotationTransformer()
    x = rotations["in/axis_angle_f32"]
    y = transformer.forward(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, rotations["out/axis_angle_f32->rotation_6d/forward"], atol=1e-6)
    assert torch.equal(transformer.forward(torch.from_numpy(x)), torch.from_numpy(y))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-5, 1.0, np.pi - 1e-7])
def test_small_and_large_angles_survive(angle):
    x = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64) * angle
    for rep in ("rotation_6d", "matrix", "quaternion"):
        transformer = RotationTransformer("axis_angle", rep)
        torch.testing.assert_close(transformer.inverse(transformer.forward(x)), x, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("axis_angle", "axis_angle"), "nothing to convert"),
        (("axes", "matrix"), "from_rep is 'axes'"),
        (("matrix", "euler_angles"), "to_convention such as"),
        (("euler_angles", "matrix", "XXY"), "from_convention such as"),
    ],
)
def test_unknown_representations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RotationTransformer(*arguments)
