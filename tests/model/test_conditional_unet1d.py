import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.model.diffusion.positional_embedding import SinusoidalPosEmb

CASES = ["a_unet_global", "b_unet_local", "c_unet_k3_2lvl_nocond"]


def _case(compat, name):
    fixture = load_fixture(compat, name)
    torch.manual_seed(0)
    return fixture, ConditionalUnet1D(**fixture.meta["kwargs"]).eval()


def _conditions(fixture):
    return {key: value for key, value in fixture.tensors("in/").items() if key.endswith("_cond")}


@pytest.mark.parametrize("name", CASES)
def test_initial_weights_and_their_order_are_those_of_a_seed(compat, name):
    fixture, net = _case(compat, name)
    assert [key for key, _ in net.named_parameters()] == fixture.meta["param_order"]
    expected = fixture.tensors("w/")
    state = net.state_dict()
    assert state.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(state[key], expected[key], rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_output_equals_fixture(compat, name):
    fixture, net = _case(compat, name)
    sample = fixture.tensor("in/sample")
    with torch.no_grad():
        for key, timestep in {"y": fixture.tensor("in/timestep"), "y_timestep_int_7": 7}.items():
            output = net(sample, timestep, **_conditions(fixture))
            torch.testing.assert_close(output, fixture.tensor(f"out/{key}"), rtol=0, atol=1e-5)
        output = net(sample, torch.tensor(7), **_conditions(fixture))
    torch.testing.assert_close(output, fixture.tensor("out/y_timestep_0dim_7"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_fixture(compat, name):
    fixture, net = _case(compat, name)
    net(fixture.tensor("in/sample"), fixture.tensor("in/timestep"), **_conditions(fixture)).square().mean().backward()
    norms = [0.0 if p.grad is None else p.grad.norm().item() for p in net.parameters()]
    torch.testing.assert_close(torch.tensor(norms), fixture.tensor("out/grad_l2_by_param"), rtol=1e-4, atol=1e-6)


def test_length_that_does_not_divide_is_refused():
    net = ConditionalUnet1D(input_dim=2, down_dims=[8, 16, 32], diffusion_step_embed_dim=8)
    with pytest.raises(ValueError, match="multiple of 4"):
        net(torch.zeros(1, 10, 2), 0)


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        ConditionalUnet1D(input_dim=2, down_dims=[8, 16], kernel_size=4)


@pytest.mark.parametrize("dim", [4, 16, 256])
def test_positional_embedding_equals_fixture(compat, dim):
    fixture = load_fixture(compat, "d_sinusoidal_pos_emb")
    embedded = SinusoidalPosEmb(dim)(fixture.tensor("in/x"))
    torch.testing.assert_close(embedded, fixture.tensor(f"out/dim{dim}"), rtol=0, atol=1e-5)
