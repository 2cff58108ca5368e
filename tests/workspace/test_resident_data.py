import copy

import numpy as np
import pytest
import torch

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler
from diffusion_policy.dataset.pusht_dataset import PushTLowdimDataset
from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset
from diffusion_policy.workspace import resident_data
from diffusion_policy.workspace.batch_source import BatchSource
from diffusion_policy.workspace.resident_data import ResidentData, ResidentWindows, choose_data_device

CPU, META = torch.device("cpu"), torch.device("meta")
WINDOWS = {"horizon": 16, "pad_before": 1, "pad_after": 7, "val_ratio": 0.3}


@pytest.fixture(params=["states", "images", "first images"])
def dataset(request, few_demonstrations):
    if request.param == "states":
        return PushTLowdimDataset(str(few_demonstrations), **WINDOWS)
    n_obs_steps = 2 if request.param == "first images" else None
    return PushTImageDataset(str(few_demonstrations), n_obs_steps=n_obs_steps, **WINDOWS)


def _assert_equal(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            _assert_equal(value, b[key])
        else:
            assert value.dtype == b[key].dtype
            assert torch.equal(value, b[key])


def test_every_window_is_the_datasets_own(dataset):
    for part in (dataset, dataset.get_validation_dataset()):
        windows = ResidentWindows(ResidentData(dataset, CPU), part, pin=False)
        idxs = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
        _assert_equal(windows(idxs), part.get_windows(idxs.numpy()))


@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_order_and_random_state_are_those_of_a_loader(dataset, drop_last):
    sources = {
        name: BatchSource(dataset, CPU, 50, shuffle=True, drop_last=drop_last, **arguments)
        for name, arguments in {
            "resident": {"resident": ResidentData(dataset, CPU)},
            "loader": {},
            "processes": {"num_workers": 2, "persistent_workers": True},
        }.items()
    }
    epochs, after = {}, {}
    for name, source in sources.items():
        torch.manual_seed(3)
        epochs[name] = [list(source) for _ in range(2)]
        after[name] = torch.rand(1)
        assert [len(epoch) for epoch in epochs[name]] == [len(source)] * 2
    for name in ("loader", "processes"):
        assert after[name] == after["resident"]
        for epoch, other in zip(epochs["resident"], epochs[name], strict=True):
            for batch, other_batch in zip(epoch, other, strict=True):
                _assert_equal(batch, other_batch)
    first, second = epochs["resident"]
    assert not torch.equal(first[0]["action"], second[0]["action"])


def test_on_a_device_nothing_meets_what_lies_elsewhere(dataset):
    """Torch refuses to mix tensors of the meta device with others, as it does those of a GPU."""
    resident = ResidentData(dataset, META)
    batch = next(iter(BatchSource(dataset, META, 8, shuffle=True, resident=resident)))
    expected = dataset.get_batch(range(8))
    shapes = dict_apply(batch, lambda x: (x.device.type, x.shape, x.dtype))
    assert shapes == dict_apply(expected, lambda x: ("meta", x.shape, x.dtype))


def test_on_the_cpu_no_array_is_copied(dataset):
    resident = ResidentData(dataset, CPU)
    for key, array in dataset.sampler.arrays.items():
        assert np.shares_memory(resident.tensors[key].numpy(), array)


class FromStore(PushTLowdimDataset):
    """Reads every window from the zarr that it is in."""

    def __init__(self, zarr_path):
        super().__init__(zarr_path, horizon=16)
        self.sampler = SequenceSampler(ReplayBuffer.create_from_path(zarr_path), sequence_length=16)


class Reversed(PushTLowdimDataset):
    """Makes windows its own way, which gathering from its arrays would ignore."""

    def get_windows(self, indices):
        return {key: value.flip(1) for key, value in super().get_windows(indices).items()}


def test_choices_of_where_data_lie(few_demonstrations):
    in_memory, on_disk = (cls(str(few_demonstrations)) for cls in (PushTLowdimDataset, FromStore))
    assert choose_data_device("auto", in_memory, CPU) == "cpu"
    assert choose_data_device("cpu", in_memory, CPU) == "cpu"
    assert choose_data_device("loader", in_memory, CPU) == "loader"
    assert choose_data_device("auto", on_disk, CPU) == "loader"
    assert choose_data_device("auto", [1, 2, 3], CPU) == "loader"
    assert choose_data_device("auto", Reversed(str(few_demonstrations)), CPU) == "loader"
    partial = copy.copy(in_memory)
    partial.sampler = SequenceSampler(in_memory.replay_buffer, 16, key_first_k={"state": 2})
    assert choose_data_device("auto", partial, CPU) == "loader"


@pytest.mark.parametrize(
    ("choice", "dataset_class", "message"),
    [
        ("gpu", PushTLowdimDataset, "must be one of auto, cuda, cpu, shards, loader, got 'gpu'"),
        ("cuda", PushTLowdimDataset, "data_device=cuda needs a GPU to train on, training.device is cpu"),
        (
            "cpu",
            FromStore,
            "data_device=cpu is not possible: FromStore reads its data from a store",
        ),
    ],
)
def test_choices_that_cannot_be_had_are_refused(few_demonstrations, choice, dataset_class, message):
    with pytest.raises(ConfigError, match=message):
        choose_data_device(choice, dataset_class(str(few_demonstrations)), CPU)


@pytest.fixture
def in_store(few_demonstrations, tmp_path):
    """Images that stay on disk, and the same in memory."""
    buffer = ReplayBuffer.copy_from_path(few_demonstrations)
    images = np.random.default_rng(0).integers(0, 256, (buffer.n_steps, 8, 8, 3)).astype(np.uint8)
    data = {"img": images, "state": buffer["state"], "action": buffer["action"]}
    path = tmp_path / "images.zarr"
    ReplayBuffer({"data": data, "meta": {"episode_ends": buffer.episode_ends}}).save_to_path(path)
    return [PushTImageDataset(str(path), in_memory=in_memory, n_obs_steps=2, **WINDOWS) for in_memory in (False, True)]


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_shards_have_equally_many_of_all_windows(in_store, n_ranks, monkeypatch):
    monkeypatch.setattr(resident_data, "BLOCK_BYTES", 5000)  # read in many blocks
    expected = (in_store[1], in_store[1].get_validation_dataset())
    for dataset in in_store:
        parts = (dataset, dataset.get_validation_dataset())
        for rank in range(n_ranks):
            data = ResidentData(dataset, CPU, parts[1], rank, n_ranks)
            assert len(data.tensors["img"]) < 0.7 * dataset.replay_buffer.n_steps
            for part, whole in zip(parts, expected, strict=True):
                size = len(part) // n_ranks
                windows = ResidentWindows(data, part, pin=False)(torch.arange(size))
                _assert_equal(windows, whole.get_windows(range(rank * size, (rank + 1) * size)))


def test_an_epoch_of_shards_has_every_window_once(in_store):
    dataset, n_ranks = in_store[0], 2
    shards = [ResidentData(dataset, CPU, None, rank, n_ranks) for rank in range(n_ranks)]
    sources = [BatchSource(dataset, CPU, 10, rank=i, n_ranks=n_ranks, resident=shards[i]) for i in range(n_ranks)]
    batches = [list(source) for source in sources]
    sizes = [[len(batch["action"]) for batch in each] for each in batches]
    assert sizes[0] == sizes[1]
    assert set(sizes[0][:-1]) == {5}
    actions = torch.cat([batch["action"] for each in batches for batch in each])
    assert torch.equal(actions, in_store[1].get_batch(range(len(dataset) // 2 * 2))["action"])


def test_data_in_a_store_are_gathered_from_a_device_that_holds_them(in_store):
    stored, held = (next(iter(BatchSource(d, CPU, 8, resident=ResidentData(d, CPU)))) for d in in_store)
    _assert_equal(stored, held)


def test_where_data_in_a_store_lie(in_store):
    stored, held = in_store
    for n_ranks in (1, 2):
        assert choose_data_device("auto", stored, CPU, n_ranks) == "loader"
        assert choose_data_device("auto", held, CPU, n_ranks) == "cpu"
    assert choose_data_device("shards", stored, CPU, 2) == "shards"
    with pytest.raises(ConfigError, match=r"data_device=cpu: the data are not in memory, task.dataset.in_memory"):
        choose_data_device("cpu", stored, CPU)


@pytest.mark.parametrize(("free", "places"), [(3.0, "cuda"), (2.0, "shards"), (1.0, "loader")])
def test_a_gpu_holds_what_fits_and_several_hold_parts(in_store, monkeypatch, free, places):
    """`free` memory of a GPU, in units of the data; 40 % of it is for them."""
    n_bytes = sum(array.nbytes for array in in_store[0].sampler.arrays.values())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * n_bytes), 0))
    assert choose_data_device("auto", in_store[0], torch.device("cuda"), n_ranks=2) == places
