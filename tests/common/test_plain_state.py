import numpy as np
import pytest
import torch

from diffusion_policy.common.checkpoint_file import CheckpointError, write_checkpoint
from diffusion_policy.common.plain_state import HostSnapshots, plain_copy


def test_snapshot_does_not_follow_its_source():
    weight, numbers = torch.ones(3, 2), [1]
    snapshot = HostSnapshots().take({"w": weight, "n": numbers, "rng": (weight[0], 2.5)})
    weight.zero_()
    numbers.append(2)
    assert torch.equal(snapshot["w"], torch.ones(3, 2))
    assert torch.equal(snapshot["rng"][0], torch.ones(2))
    assert snapshot["n"] == [1]


def test_snapshot_holds_each_weight_by_itself_and_once():
    flat = torch.arange(12.0)
    weight = flat[2:8].view(3, 2).t()
    snapshot = HostSnapshots().take({"a": weight, "b": weight.detach(), "other": flat[8:], "empty": flat[:0]})
    assert torch.equal(snapshot["a"], weight)
    assert snapshot["a"].stride() == weight.stride()
    assert snapshot["a"].untyped_storage().nbytes() == weight.nbytes
    assert snapshot["a"].data_ptr() == snapshot["b"].data_ptr()
    assert torch.equal(snapshot["other"], flat[8:])
    assert snapshot["empty"].shape == (0,)


def test_next_snapshot_uses_the_buffers_again_where_they_fit():
    snapshots = HostSnapshots()
    first = snapshots.take({"a": torch.zeros(4), "b": torch.zeros(2)})
    places = [first["a"].data_ptr(), first["b"].data_ptr()]
    second = snapshots.take({"a": torch.ones(4), "b": torch.ones(3, dtype=torch.float64)})
    assert second["a"].data_ptr() == places[0]
    assert torch.equal(second["a"], torch.ones(4))
    assert torch.equal(second["b"], torch.ones(3, dtype=torch.float64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_snapshot_of_a_gpu_is_what_was_there_when_it_was_taken():
    weight = torch.ones(1 << 20, device="cuda")
    snapshot = HostSnapshots().take({"w": weight})
    weight.zero_()
    assert snapshot["w"].is_pinned()
    assert snapshot["w"].min() == 1


def test_numbers_of_numpy_become_plain():
    assert type(plain_copy({"a": [np.float64(2.5)]})["a"][0]) is float


@pytest.mark.parametrize("value", [{1, 2}, object(), np.zeros(2), print])
def test_what_could_not_be_read_back_is_not_written(tmp_path, value):
    with pytest.raises(TypeError, match=rf"values\.here\[1\] is a {type(value).__name__}: a checkpoint takes"):
        plain_copy({"values": {"here": [0, value]}})
    with pytest.raises(CheckpointError, match=r"values\.here\[1\]"):
        write_checkpoint(tmp_path / "a.ckpt", {"values": {"here": [0, value]}})
    assert list(tmp_path.iterdir()) == []
