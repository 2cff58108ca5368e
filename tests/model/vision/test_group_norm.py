import pytest
import torch
from torch import nn

from diffusion_policy.common.device import has_triton
from diffusion_policy.model.vision.group_norm import GroupNorm, batch_norm_to_group_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (3, 8, 2, 4)])
def test_triton_kernel_is_torchs_group_norm(shape):
    if not has_triton():
        pytest.skip("Triton is not installed: it comes with torch for CUDA")
    from diffusion_policy.model.vision.group_norm_kernels import channels_last_group_norm

    torch.manual_seed(0)
    norm = nn.GroupNorm(2, shape[1]).to(DEVICE)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    results = []
    for is_ours in (False, True):
        torch.manual_seed(1)
        x = torch.randn(shape, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
        out = channels_last_group_norm(x, 2, norm.weight, norm.bias, norm.eps) if is_ours else norm(x)
        gradients = torch.autograd.grad((out * torch.randn(shape, device=DEVICE)).sum(), [x, norm.weight, norm.bias])
        results.append((out, *gradients))
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_it_replaces_batch_norm_under_the_same_names():
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))
    replaced = batch_norm_to_group_norm(module)
    assert isinstance(replaced[1], GroupNorm)
    assert list(replaced.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(replaced[1](x), nn.GroupNorm(2, 32)(x), rtol=0, atol=0)
