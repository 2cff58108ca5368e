"""Images of recorded Push-T states, drawn as the simulator draws what it is in.

As a module it is also the program of the processes that share the work:
`python -m diffusion_policy.env.pusht.state_renderer SIZE` reads states from standard input and writes images to
standard output. Programs of their own, unlike processes of multiprocessing, need nothing of the script that runs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BufferedReader
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from diffusion_policy.env.pusht.pusht_env import FloatArray, Pixels, PushTEnv

# A process draws about 1400 images a second and takes a second to start.
_STATES_PER_PROCESS = 2000
_MAX_PROCESSES = 16
_BLOCK = 100  # images between two updates of the progress bar


def render_states(states: ArrayLike, size: int = 96, n_processes: int | None = None) -> NDArray[np.uint8]:
    """Images `(N, size, size, 3)` of `states` `(N, 5)`: agent x, y, block x, y (px), block angle (rad).

    They equal the images of the episode in which the states were recorded: contacts are drawn, actions are not. A
    state in float32 may put a corner into the next pixel, as one of the 25 650 published states does.

    Args:
        n_processes: how many share the work; None for one a processor where there is enough for each.

    Raises:
        ValueError: `states` has another shape, or a value is not finite.
        RuntimeError: a process that draws ended early.
    """
    array = np.ascontiguousarray(states, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(
            f"got states of shape {array.shape}, expected (N, 5): agent x, y, block x, y, block angle of each"
        )
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise ValueError(f"got {array[row]} as state {row}, expected finite numbers")
    if n_processes is None:
        n_processes = min(os.cpu_count() or 1, _MAX_PROCESSES, len(array) // _STATES_PER_PROCESS)
    images = np.empty((len(array), size, size, 3), dtype=np.uint8)
    with tqdm(total=len(array), desc="Rendering Push-T states", unit="image", delay=1, leave=False) as bar:
        if n_processes > 1:
            _render_in_processes(array, images, n_processes, bar.update)
        else:
            for image, drawing in zip(images, _drawings(array, size), strict=True):
                image[:] = drawing
                bar.update()
    return images


def _drawings(states: FloatArray, size: int) -> Iterator[Pixels]:
    env = PushTEnv(render_action=False, render_size=size)
    env.reset(seed=0)
    # Setting a state ends with a simulation step, which finds the contacts to draw. It would also push overlapping
    # shapes apart, by a velocity that moves the next state's block, unless overlap is to stay as it is.
    env.space.collision_bias = 1.0
    for state in states:
        env._set_state(state)
        yield env.render()


def _render_in_processes(
    states: FloatArray, images: Pixels, n_processes: int, advance: Callable[[int], object]
) -> None:
    size = images.shape[1]
    parts = zip(np.array_split(states, n_processes), np.array_split(images, n_processes), strict=True)
    with ExitStack() as stack, ThreadPoolExecutor(n_processes) as pool:
        processes = [stack.enter_context(_start_process(size)) for _ in range(n_processes)]
        try:
            reading = [
                pool.submit(_exchange, process, *part, advance) for process, part in zip(processes, parts, strict=True)
            ]
            for future in reading:
                future.result()
        finally:
            for process in processes:
                process.kill()  # those still at work after an error or Ctrl-C, and with them the threads that read


def _start_process(size: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        start_new_session=True,  # Ctrl-C is for this process, which ends them
    )


def _exchange(
    process: "subprocess.Popen[bytes]", states: FloatArray, images: Pixels, advance: Callable[[int], object]
) -> None:
    """Sends states to a process and reads their images, into the memory given."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as stdin:  # it may have ended, which is noticed below
        stdin.write(states.tobytes())
    stdout = cast(BufferedReader, process.stdout)
    n_bytes = 0
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        n_bytes += stdout.readinto(block.data.cast("B"))
        advance(len(block))
    too_many = stdout.read(1)  # something printed among the images
    if too_many:
        process.kill()
    status = process.wait()
    if status != 0 or too_many or n_bytes != images.nbytes:
        raise RuntimeError(
            f"a process that renders Push-T states ended with exit status {status} after {n_bytes} of "
            f"{images.nbytes} bytes; what it says is above"
        )


def main() -> None:
    """Standard input to standard output: states (5,) float64 to images (size, size, 3) uint8."""
    states = np.frombuffer(sys.stdin.buffer.read(), dtype=np.float64).reshape(-1, 5)
    for image in _drawings(states, size=int(sys.argv[1])):
        sys.stdout.buffer.write(image.tobytes())


if __name__ == "__main__":
    main()
