"""Capturing CUDA graphs, and mending what a failed capture leaves behind."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class CaptureError(RuntimeError):
    """What a CUDA graph cannot hold, with the reason; nothing of it has been carried out."""


def capture(function: Callable[[], T], stream: torch.cuda.Stream, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of what `function` does on the GPU, which must have run on `stream` before, and what it returned.

    Args:
        function: not carried out.
        stream: to capture on.
        pool: memory shared with other graphs; memory of its own if None.

    Raises:
        CaptureError: with the first line of what went wrong.
    """
    graph = torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    try:
        # Thread-local: other threads, such as data loaders', may use the GPU meanwhile.
        recording = torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local")
        # `recording` enters the stream too, but does not leave it if it breaks.
        with garbage_kept(), torch.cuda.stream(stream), recording:
            result = function()
    except Exception as error:
        _mend(stream, pool)
        # What broke the capture is said by the first error, that it is broken by the next.
        raise CaptureError(str(error.__context__ or error).split("\n", 1)[0]) from error
    return graph, result


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collects garbage now, and none within the block: a graph that is destroyed in a capture breaks it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _mend(stream: torch.cuda.Stream, pool: Any) -> None:
    """Ends a broken capture for torch's allocator and generator too: before 2.13, torch leaves them in it."""
    device = stream.device_index
    with suppress(RuntimeError):  # it has ended
        torch._C._cuda_endAllocateToPool(device, pool)
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())
