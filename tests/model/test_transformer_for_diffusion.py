import pytest
import torch
from fixtures import load_fixture

from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion

CASES = ["d_tf_bert", "d_tf_bert_nobs_none", "d_tf_nocond_causal", "d_tf_obscond_causal", "d_tf_obscond_causal_encoder"]


@pytest.fixture(params=CASES)
def case(request, compat):
    fixture = load_fixture(compat, request.param)
    torch.manual_seed(0)
    return fixture, TransformerForDiffusion(**fixture.meta["kwargs"]).eval()


def test_initial_weights_and_masks_are_those_of_a_seed(case):
    fixture, net = case
    expected = fixture.tensors("w/")
    assert list(net.state_dict()) == list(expected)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0, msg=key)
    assert {key: getattr(net, key) for key in fixture.meta["attrs"]} == fixture.meta["attrs"]


def test_output_equals_fixture(case):
    fixture, net = case
    cond = fixture.tensors("in/cond").get("")
    for key, timestep in {"y": fixture.tensor("in/timestep"), "y_timestep_int_7": 7}.items():
        output = net(fixture.tensor("in/sample"), timestep, cond)
        torch.testing.assert_close(output, fixture.tensor(f"out/{key}"), rtol=0, atol=1e-5)


def test_optimizer_groups_equal_fixture(case):
    fixture, net = case
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in net.get_optim_groups()]
    assert groups == fixture.meta["optim_groups"]


def test_causal_attention_does_not_look_ahead():
    torch.manual_seed(0)
    net = TransformerForDiffusion(2, 2, 6, n_obs_steps=3, cond_dim=4, n_layer=2, n_head=2, n_emb=8, causal_attn=True)
    net.eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    sample, cond = torch.randn(1, 6, 2), torch.randn(1, 3, 4)
    output = net(sample, 3, cond)
    later = sample.clone()
    later[:, 4:] += 1
    torch.testing.assert_close(net(later, 3, cond)[:, :4], output[:, :4])
    seen_later = cond.clone()
    seen_later[:, 2] += 1
    changed = (net(sample, 3, seen_later) - output).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False, False, True, True, True, True]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="needs time_as_cond=True"):
        TransformerForDiffusion(2, 2, 4, cond_dim=3, time_as_cond=False)
    net = TransformerForDiffusion(2, 2, 4, n_obs_steps=2, cond_dim=3, n_layer=1, n_head=2, n_emb=8)
    with pytest.raises(ValueError, match="needs observations as cond"):
        net(torch.zeros(1, 4, 2), 0)
    with pytest.raises(ValueError, match="got 5 tokens, this model was built for at most 4"):
        net(torch.zeros(1, 5, 2), 0, torch.zeros(1, 2, 3))
