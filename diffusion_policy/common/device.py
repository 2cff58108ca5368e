"""Choice of the device to compute on."""

from functools import cache

import torch


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        ValueError: if the device is not there; names those that are.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda:0" if has_cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not a device; use auto, cpu or cuda:0") from error
    count = torch.cuda.device_count() if has_cuda else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
        raise ValueError(f"device {name!r} is not available; there are: {there}. Use one of these, or auto")
    return device


@cache
def has_triton() -> bool:
    """Whether Triton's kernels run here: on Linux it comes with torch's CUDA builds, and takes GPUs since Volta."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (7, 0)
