import copy

import pytest
import torch
from fixtures import load_fixture
from torch import nn

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.diffusion.ema_model import EMAModel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", ["config_default", "class_default", "after100_min0.1"])
def test_decay_equals_fixture(compat, case):
    fixture = load_fixture(compat, "g_ema")
    ema = EMAModel(nn.Linear(1, 1), **fixture.meta["cases"][case])
    decays = torch.tensor([ema.get_decay(step) for step in range(2001)], dtype=torch.float64)
    torch.testing.assert_close(decays, fixture.tensor(f"out/{case}"), rtol=1e-12, atol=0)


def _network():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    net[2].bias.requires_grad_(False)
    return net


def test_steps_equal_fixture(compat):
    fixture = load_fixture(compat, "g_ema")
    net, averaged = _network(), _network()
    for module in (net, averaged):
        module.load_state_dict(fixture.tensors("x/init/"))
    ema = EMAModel(averaged, power=0.75)
    for step in range(4):
        with torch.no_grad():
            for i, parameter in enumerate(net.parameters()):
                parameter += 0.1 * (i + 1) * (step + 1)
            net[1].running_mean += 1
        ema.step(net)
        assert ema.decay == pytest.approx(fixture.arrays[f"x/decay_step{step}"].item())
        for key, value in fixture.tensors(f"x/after_step{step}/").items():
            torch.testing.assert_close(averaged.state_dict()[key], value, rtol=1e-6, atol=1e-6)


def test_counter_is_part_of_the_state():
    ema = EMAModel(nn.Linear(2, 2))
    for _ in range(5):
        ema.step(nn.Linear(2, 2))
    resumed = EMAModel(nn.Linear(2, 2))
    resumed.load_state_dict(ema.state_dict())
    assert resumed.optimization_step == 5
    assert resumed.decay == ema.decay > 0


class _Mixed(nn.Module):
    """Two dtypes, two memory formats, a parameter used twice, one without elements, norms, and one not trained."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(5)
        self.double = nn.Linear(7, 3).double()
        self.tied = nn.Linear(3, 3)
        self.tied_too = nn.Linear(3, 3)
        self.tied_too.weight = self.tied.weight
        self.empty = nn.Parameter()
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def _change(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


def test_flat_average_equals_that_of_each_parameter():
    torch.manual_seed(0)
    model = _Mixed()
    averaged = copy.deepcopy(model)
    expected = [parameter.detach().clone() for parameter in averaged.parameters()]
    formats = [parameter.stride() for parameter in model.parameters()]
    ema = EMAModel(averaged, power=0.75)
    for step in range(6):
        if step == 3:  # as when an encoder is frozen after construction
            model.conv.requires_grad_(False)
        _change(model)
        ema.step(model)
        copied = {*model.norm.parameters(), model.frozen, *(model.conv.parameters() if step >= 3 else ())}
        for old, new in zip(expected, model.parameters(), strict=True):
            old.copy_(new.detach()) if new in copied else old.lerp_(new.detach(), 1 - ema.decay)
        for old, new in zip(averaged.parameters(), expected, strict=True):
            assert torch.equal(old, new)
    assert [parameter.stride() for parameter in model.parameters()] == formats
    assert averaged.tied_too.weight is averaged.tied.weight


def test_average_follows_parameters_that_move():
    model, averaged = nn.Linear(3, 2), nn.Linear(3, 2)
    ema = EMAModel(averaged)
    ema.step(model)
    for module in (model, averaged):
        for parameter in module.parameters():
            parameter.data = parameter.detach().clone()
        _change(model)
        ema.step(model)
        ema.update_after_step = ema.optimization_step  # copies from now on
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_copies_and_loaded_states_are_independent_of_the_average():
    model, averaged = nn.Linear(3, 2), nn.Linear(3, 2)
    ema = EMAModel(averaged)
    ema.step(model)
    copied = copy.deepcopy(averaged)
    averaged.load_state_dict({"weight": torch.full((2, 3), 5.0), "bias": torch.full((2,), 5.0)})
    assert torch.equal(copied.weight, model.weight)
    assert copied.weight.untyped_storage().nbytes() == copied.weight.nbytes
    _change(model)
    ema.optimization_step = 100
    ema.step(model)
    expected = torch.lerp(torch.full((2, 3), 5.0), model.weight, 1 - ema.decay)
    torch.testing.assert_close(averaged.weight, expected)


def test_versions_tell_that_the_average_has_changed():
    model, averaged = nn.Linear(3, 2), nn.Linear(3, 2)
    ema = EMAModel(averaged)
    ema.step(model)
    versions = [parameter._version for parameter in averaged.parameters()]
    ema.step(model)
    assert all(new._version > old for new, old in zip(averaged.parameters(), versions, strict=True))


@pytest.mark.parametrize("weight", [0.001, 0.7])
def test_kernel_is_torchs_lerp(weight):
    if not has_triton():
        pytest.skip("Triton is not installed: it comes with torch for CUDA")
    from diffusion_policy.model.diffusion.ema_kernel import lerp_on_gpu

    old, new = torch.randn(2, 3000, device=DEVICE).unbind()
    weight = torch.tensor(weight, device=DEVICE)
    expected = torch.lerp(old, new, weight)
    lerp_on_gpu(old, new, weight)
    torch.testing.assert_close(old, expected, rtol=0, atol=1e-6)
