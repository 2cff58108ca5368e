import torch
from torch import nn

from diffusion_policy.model.common.shape_util import get_module_device, get_output_shape


def test_output_shape_leaves_the_network_alone():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert get_output_shape((3, 9, 11), net) == (5, 4, 5)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_device_of_a_module():
    assert get_module_device(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert get_module_device(nn.ReLU()) == torch.device("cpu")
