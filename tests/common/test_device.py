import pytest
import torch

from diffusion_policy.common.device import resolve_device


def test_auto_is_the_best_there_is():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_absent_device_names_those_that_are_there():
    with pytest.raises(ValueError, match="'cuda:99' is not available; there are: cpu"):
        resolve_device("cuda:99")
    with pytest.raises(ValueError, match="'gpu' is not a device"):
        resolve_device("gpu")
