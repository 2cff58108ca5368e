"""Demonstrations of the kitchen: as arrays and as recordings."""

import shutil

import numpy as np
import pytest
import torch

from diffusion_policy.dataset.kitchen_lowdim_dataset import KitchenLowdimDataset
from diffusion_policy.dataset.kitchen_mjl_lowdim_dataset import KitchenMjlLowdimDataset
from diffusion_policy.env.kitchen.kitchen_util import write_mjl_log
from diffusion_policy.env.kitchen.state import NOISE_AMPLITUDE

LENGTHS = (5, 9, 7)


def _arrays(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    steps = max(lengths)
    mask = np.array([[float(t < length) for t in range(steps)] for length in lengths])
    return {
        "observations_seq": rng.normal(size=(len(lengths), steps, 60)),
        "actions_seq": rng.uniform(-1, 1, size=(len(lengths), steps, 9)),
        "existence_mask": mask,
    }


@pytest.fixture
def write(tmp_path):
    def save(**arrays):
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        return str(tmp_path)

    return save


@pytest.mark.parametrize("by_step", [False, True])
def test_padding_is_left_out_whichever_axis_comes_first(write, by_step):
    arrays = _arrays()
    folder = write(**{name: array.swapaxes(0, 1) if by_step else array for name, array in arrays.items()})
    dataset = KitchenLowdimDataset(folder, horizon=4)
    assert dataset.replay_buffer.episode_ends[:].tolist() == [5, 14, 21]
    assert len(dataset) == 2 + 6 + 4
    expected = arrays["observations_seq"][1, :4].astype(np.float32)
    np.testing.assert_array_equal(dataset[2]["obs"], expected)
    np.testing.assert_array_equal(dataset[2]["action"], arrays["actions_seq"][1, :4].astype(np.float32))


def test_initial_states_tell_axes_apart_where_the_mask_does_not(write):
    arrays = _arrays((4, 4, 4))
    by_step = {name: array.swapaxes(0, 1) for name, array in arrays.items()}
    folder = write(**by_step, all_init_qpos=np.zeros((3, 30)))
    assert KitchenLowdimDataset(folder).replay_buffer.n_episodes == 3


def test_entries_that_hardly_change_are_not_blown_up(write):
    arrays = _arrays()
    arrays["observations_seq"][..., 20] = np.linspace(0.3, 0.34, 9)
    dataset = KitchenLowdimDataset(write(**arrays))
    normalizer = dataset.get_normalizer()
    assert normalizer["obs"].params_dict["scale"][20] == 1
    assert dataset.get_normalizer(range_eps=1e-4)["obs"].params_dict["scale"][20] > 10
    torch.testing.assert_close(normalizer["action"].normalize(dataset.get_all_actions()).amax(0), torch.ones(9))


@pytest.mark.parametrize("name", ["observations_seq", "actions_seq", "existence_mask"])
def test_a_missing_file_is_named(write, tmp_path, name):
    folder = write(**_arrays())
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}\.npy.*generate_kitchen_demos"):
        KitchenLowdimDataset(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("observations_seq", lambda x: x[..., :59], r"\(3, 9, 59\), expected \(3, 9, 60\)"),
        ("actions_seq", lambda x: x[:, :-1], r"\(3, 8, 9\), expected \(3, 9, 9\)"),
        ("existence_mask", lambda x: x * (np.arange(9) != 2), "gaps within episodes"),
        ("actions_seq", lambda x: np.where(np.arange(9) == 3, np.nan, x), "'action' has NaN .*episode 0"),
    ],
)
def test_bad_arrays_are_refused(write, name, change, message):
    arrays = _arrays()
    with pytest.raises(ValueError, match=message):
        KitchenLowdimDataset(write(**{**arrays, name: change(arrays[name])}))


class TestRecordings:
    def test_steps_are_every_40th_record(self, kitchen_demos):
        recorded = KitchenMjlLowdimDataset(str(kitchen_demos / "kitchen_demos_multitask"), horizon=8)
        buffer = KitchenLowdimDataset(str(kitchen_demos), horizon=8).replay_buffer
        assert recorded.replay_buffer.episode_ends[:].tolist() == buffer.episode_ends[:].tolist()
        obs = recorded.replay_buffer["obs"]
        # the generator's observations have noise, the recordings none
        assert (np.abs(obs - buffer["obs"])[:, :30] <= 0.1 * NOISE_AMPLITUDE + 1e-5).all()
        assert not obs[:, 30:].any()
        # a target, not a velocity: what the velocity leads to from the observed joints
        reached = buffer["obs"][:, :9] + 0.16 * buffer["action"]
        inside = (reached[:, :7] > -2.9).all(1) & (reached[:, 5] < 2.1)
        np.testing.assert_allclose(recorded.replay_buffer["action"][inside, :5], reached[inside, :5], atol=1e-4)

    def test_noise_is_of_the_seed(self, kitchen_demos):
        folder = str(kitchen_demos / "kitchen_demos_multitask")
        clean, first, again, other = (
            KitchenMjlLowdimDataset(folder, robot_noise_ratio=ratio, seed=seed).replay_buffer["obs"]
            for ratio, seed in ((0, 1), (0.1, 1), (0.1, 1), (0.1, 2))
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        noise = np.abs(first - clean)[:, :30]
        assert (noise <= 0.1 * NOISE_AMPLITUDE + 1e-5).all()
        assert (noise.max(0) > 0.08 * NOISE_AMPLITUDE).all()

    def test_velocities_are_refused(self, kitchen_demos):
        with pytest.raises(ValueError, match=r"abs_action is False.*task=kitchen_lowdim"):
            KitchenMjlLowdimDataset(str(kitchen_demos / "kitchen_demos_multitask"), abs_action=False)

    def test_absent_and_damaged_recordings_are_named(self, kitchen_demos, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no \*/\*\.mjl in .*--mjl"):
            KitchenMjlLowdimDataset(str(tmp_path))
        (tmp_path / "some").mkdir()
        source = next(kitchen_demos.glob("kitchen_demos_multitask/*/*.mjl"))
        shutil.copy(source, tmp_path / "some" / "0.mjl")
        write_mjl_log(tmp_path / "some" / "1.mjl", np.zeros(3), np.zeros((3, 7)), np.zeros((3, 7)), np.zeros((3, 7)))
        with pytest.raises(ValueError, match=r"1\.mjl has 7 positions and 7 motors"):
            KitchenMjlLowdimDataset(str(tmp_path))
        (tmp_path / "some" / "1.mjl").write_bytes(source.read_bytes()[:-5])
        with pytest.raises(ValueError, match=r"1\.mjl is damaged"):
            KitchenMjlLowdimDataset(str(tmp_path))
