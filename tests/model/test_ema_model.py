import pytest
import torch
from fixtures import load_fixture
from torch import nn

from diffusion_policy.model.diffusion.ema_model import EMAModel


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
