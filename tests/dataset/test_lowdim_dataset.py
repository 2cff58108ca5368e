import numpy as np
import pytest

from diffusion_policy.dataset.lowdim_dataset import LowdimDataset


@pytest.fixture
def path(write_demonstrations):
    rng = np.random.default_rng(0)
    shapes = {"where": (2, 2), "goal": (3,), "act": (2,)}
    return write_demonstrations([{key: rng.normal(size=(n, *shape)) for key, shape in shapes.items()} for n in (6, 8)])


def test_arrays_are_put_side_by_side(path):
    dataset = LowdimDataset(path, horizon=4, obs_keys=["goal", "where"], action_key="act")
    buffer = dataset.replay_buffer
    assert len(dataset) == 3 + 5
    expected = np.concatenate([buffer["goal"][1:5], buffer["where"][1:5].reshape(4, 4)], axis=1)
    np.testing.assert_array_equal(dataset[1]["obs"], expected.astype(np.float32))
    np.testing.assert_array_equal(dataset[1]["action"], buffer["act"][1:5].astype(np.float32))
    assert dataset.get_normalizer()["obs"].params_dict["scale"].shape == (7,)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"obs_dim": 9}, r"'obs' has steps of shape \[3\], expected \[9\]"),
        ({"action_dim": 7}, r"'action' has steps of shape \[2\], expected \[7\]"),
    ],
)
def test_other_dimensions_than_the_policys_are_refused(path, dims, message):
    with pytest.raises(ValueError, match=message):
        LowdimDataset(path, obs_keys=["goal"], action_key="act", **dims)
