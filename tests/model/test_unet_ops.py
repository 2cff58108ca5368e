"""Each way of computing the U-Net against the plain one.

Triton's kernels run in its interpreter where there is no GPU: a program at a time, so networks are tiny.
"""

import copy

import pytest
import torch
from plain_unet import PlainUnet

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.diffusion import unet_packed_ops
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D, training_ops
from diffusion_policy.model.diffusion.unet_ops import TorchOps, cast_weights
from diffusion_policy.model.diffusion.unet_packed_ops import PackedOps, packed_weights, packing_is_possible
from diffusion_policy.model.diffusion.unet_sampler import UnetSampler, WeightLayout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
UNETS = {
    "film": {
        "input_dim": 2,
        "global_cond_dim": 6,
        "down_dims": [8, 24],
        "n_groups": 2,
        "kernel_size": 5,
        "cond_predict_scale": True,
    },
    "local": {"input_dim": 3, "local_cond_dim": 5, "down_dims": [16, 24], "n_groups": 2},
    # Narrower further down: what is joined on the way up is a residual, too.
    "narrowing": {"input_dim": 2, "down_dims": [16, 8], "n_groups": 2},
}


@pytest.fixture(autouse=True)
def _float32_means_float32():
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def _unet(kind):
    torch.manual_seed(0)
    net = ConditionalUnet1D(diffusion_step_embed_dim=16, **UNETS[kind]).to(DEVICE)
    with torch.no_grad():
        for parameter in net.parameters():  # norms too, which start as the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def _inputs(kind, batch=2):
    torch.manual_seed(1)
    kwargs = UNETS[kind]
    conditions = {}
    if "global_cond_dim" in kwargs:
        conditions["global_cond"] = torch.randn(batch, kwargs["global_cond_dim"], device=DEVICE)
    if "local_cond_dim" in kwargs:
        conditions["local_cond"] = torch.randn(batch, 4, kwargs["local_cond_dim"], device=DEVICE)
    return torch.randn(batch, 4, kwargs["input_dim"], device=DEVICE), conditions


def _training_ops(name, unet):
    if name == "torch":
        return TorchOps()
    if not has_triton():
        pytest.skip("Triton is not installed: it comes with torch for CUDA")
    from diffusion_policy.model.diffusion.unet_cuda_ops import CudaOps

    return CudaOps(torch.float32, cast_weights(unet, torch.float32))


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_output_and_gradients_are_those_of_the_plain_unet(monkeypatch, kind, name):
    unet = _unet(kind)
    sample, conditions = _inputs(kind)
    timesteps = torch.tensor([3, 99], device=DEVICE)
    ops = _training_ops(name, unet)
    monkeypatch.setattr("diffusion_policy.model.diffusion.conditional_unet1d.training_ops", lambda *_: ops)
    results = []
    for net in (PlainUnet(unet), unet):
        leaf = sample.clone().requires_grad_()
        output = net(leaf, timesteps, **conditions)
        weight = torch.linspace(-1, 1, output.numel(), device=DEVICE).view_as(output)
        gradients = torch.autograd.grad((output * weight).sum(), [leaf, *unet.parameters()], allow_unused=True)
        results.append((output, gradients))
    (expected, expected_gradients), (output, gradients) = results
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    names = ["sample", *(key for key, _ in unet.named_parameters())]
    for key, actual, reference in zip(names, gradients, expected_gradients, strict=True):
        if reference is None:
            assert actual is None or not actual.any(), key
        else:
            torch.testing.assert_close(actual, reference, rtol=1e-3, atol=1e-4, msg=key)


def _sampler_ops(monkeypatch, name, unet, dtype):
    if name == "packed":
        if not packing_is_possible(dtype):
            pytest.skip(f"this CPU or build of torch packs no weights of {dtype}")
        return PackedOps(packed_weights(unet.cpu(), dtype))
    if name == "torch":
        return TorchOps(cast_weights(unet, dtype))
    if not has_triton():
        pytest.skip("Triton is not installed: it comes with torch for CUDA")
    from diffusion_policy.model.diffusion import unet_small_batch_ops as small

    monkeypatch.setattr(small, "PROGRAMS", 12)
    assert small.takes(unet, batch_size=2, horizon=4)
    return small.SmallBatchOps(small.tap_by_tap_weights(unet, dtype))


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("name", ["packed", "torch", "small batch"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@torch.no_grad()
def test_sampler_is_the_plain_unet(monkeypatch, kind, name, dtype, tolerance):
    if name == "small batch" and dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter has no bfloat16: needs a GPU")
    device = "cpu" if name == "packed" else DEVICE
    unet = _unet(kind)
    ops = _sampler_ops(monkeypatch, name, unet, dtype)
    unet.to(device)
    layout = WeightLayout(unet, lambda *_: {}, dtype)
    monkeypatch.setattr("diffusion_policy.model.diffusion.unet_sampler._layout", lambda *_: (layout, lambda _: ops))
    sampler = UnetSampler(unet, [70, 0], batch_size=2, horizon=4, dtype=dtype)
    sample, conditions = _inputs(kind)
    sample, conditions = sample.to(device), {key: value.to(device) for key, value in conditions.items()}
    sample = sample.mT.contiguous().mT  # as it comes from a policy that is not ours
    denoise = sampler(**conditions)
    for index, timestep in enumerate([70, 0]):
        expected = PlainUnet(unet)(sample, timestep, **conditions)
        output = denoise(sample, index)
        assert output.dtype == sample.dtype
        torch.testing.assert_close(output, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_sampler_follows_changed_weights(dtype):
    unet = _unet("film")
    sample, conditions = _inputs("film")
    sampler = unet.sampler([40], batch_size=2, horizon=4, dtype=dtype)
    before = sampler(**conditions)(sample, 0)
    for parameter in unet.parameters():
        parameter.mul_(1.1)
    sampler.refresh()
    fresh = unet.sampler([40], batch_size=2, horizon=4, dtype=dtype)
    after = sampler(**conditions)(sample, 0)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, fresh(**conditions)(sample, 0), rtol=0, atol=0)


@pytest.mark.parametrize(("least", "possible", "packs"), [(0, True, True), (0, False, False), (10**9, True, False)])
@torch.no_grad()
def test_large_networks_are_packed_on_a_cpu_where_that_is_possible(monkeypatch, least, possible, packs):
    monkeypatch.setattr(unet_packed_ops, "MIN_PARAMETERS", least)
    monkeypatch.setattr(unet_packed_ops, "packing_is_possible", lambda _: possible)
    unet = _unet("film").cpu()
    sample, conditions = _inputs("film")
    conditions = {key: value.cpu() for key, value in conditions.items()}
    output = unet.sampler([40], batch_size=2, horizon=4)(**conditions)(sample.cpu(), 0)
    assert [key[0] is packed_weights for key in unet.weight_layouts] == [packs]
    torch.testing.assert_close(output, PlainUnet(unet)(sample.cpu(), 40, **conditions), rtol=0, atol=1e-5)


def test_training_ops_are_torchs_on_a_cpu():
    assert isinstance(training_ops(_unet("film").cpu(), torch.zeros(1)), TorchOps)


@torch.no_grad()
def test_samplers_share_their_copies_of_the_weights():
    unet = _unet("film")
    samplers = [unet.sampler(steps, batch_size, 4) for steps in ([40], [40, 0]) for batch_size in (2, 3)]
    assert len(unet.weight_layouts) == 1
    sample, conditions = _inputs("film")
    for parameter in unet.parameters():
        parameter.mul_(1.1)
    for sampler in samplers:
        sampler.refresh()
    outputs = [sampler(**conditions)(sample, 0) for sampler in samplers]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-5)
    assert not copy.deepcopy(unet).weight_layouts
