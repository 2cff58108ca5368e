"""Steps a second of each simulator; then Push-T episodes with a diffusion policy, in one or two groups.

Policy and simulators work in turns, or in two groups of environments that take turns.

Two groups let the simulators of one step while the policy predicts for the other, but the policy is then called twice
as often, for half as many episodes. What pays depends on which of the two takes longer: `--step-ms` stands for slower
simulators, `--full` for the policy's own size (66 M parameters, the default on a GPU).
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from simulators import print_rates

from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv
from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.env_group import EnvGroup
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.gym_util.async_vector_env import AsyncVectorEnv
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = {"diffusion_step_embed_dim": 64, "down_dims": [32, 64, 128]}
FULL = {"diffusion_step_embed_dim": 256, "down_dims": [256, 512, 1024]}
WAYS = {"policy and simulators in turns": 1, "two groups that take turns": 2}


class Clock:
    """Collects how long the calls of functions take (s), by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name].append(time.perf_counter() - start)
            return result

        return call

    def take(self, name: str) -> list[float]:
        """What was collected since it was taken last."""
        return self.seconds.pop(name, [])


def make_policy(size: dict[str, Any]) -> DiffusionUnetLowdimPolicy:
    """16 DDIM steps with random weights: on Push-T's scale, so that agents move all over the workspace."""
    torch.manual_seed(0)
    model = ConditionalUnet1D(2, global_cond_dim=40, kernel_size=5, **size)
    shape = {"horizon": 16, "obs_dim": 20, "action_dim": 2, "n_action_steps": 8, "n_obs_steps": 2}
    policy = DiffusionUnetLowdimPolicy(
        model, DDIMScheduler(100), **shape, num_inference_steps=16, obs_as_global_cond=True
    )
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": 512 * torch.rand(99, 20), "action": 512 * torch.rand(99, 2)})
    policy.set_normalizer(normalizer)
    return policy.to(DEVICE).eval()


class SlowerEnv(PushTKeypointsEnv):
    """Push-T with steps that take a core `step_ms` longer."""

    def __init__(self, step_ms: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step_ms = step_ms

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        end = time.process_time() + self.step_ms / 1e3
        while time.process_time() < end:
            pass
        return super().step(action)


def make_runner(output_dir: str, args: argparse.Namespace, n_env_groups: int) -> PushTKeypointsRunner:
    class Runner(PushTKeypointsRunner):
        if args.step_ms:
            env_class = staticmethod(functools.partial(SlowerEnv, args.step_ms))

    episodes = {"n_train": 0, "n_test": args.episodes, "n_test_vis": 0}
    runner = Runner(output_dir, **episodes, max_steps=args.max_steps, n_obs_steps=2, n_action_steps=8)
    runner.n_env_groups = n_env_groups
    return runner


def summary(seconds: list[float]) -> str:
    """Median, 5th and 95th percentile in ms."""
    low, median, high = 1e3 * np.percentile(seconds, [5, 50, 95])
    return f"{median:>9.1f} ({low:.1f}, {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=56, help="all run at a time, a process each")
    parser.add_argument("--max-steps", type=int, default=300, help="environment steps of an episode")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way, after one that warms up")
    parser.add_argument("--full", action="store_true", help="on the CPU too, the network of the full training")
    parser.add_argument("--step-ms", type=float, default=0.0, help="milliseconds that an environment step takes longer")
    args = parser.parse_args()
    print_rates()

    torch.set_num_threads(1)  # threads that outnumber free cores wait for each other, and time the machine's other work
    clock = Clock()
    AsyncVectorEnv.__init__ = clock.timed("start", AsyncVectorEnv.__init__)
    RolloutRunner._next_action = clock.timed("policy", RolloutRunner._next_action)
    EnvGroup.wait = clock.timed("wait", EnvGroup.wait)
    RolloutRunner.run = clock.timed("run", RolloutRunner.run)

    policy = make_policy(FULL if args.full or DEVICE.type == "cuda" else SMALL)
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        runners = {name: make_runner(folder, args, n_env_groups) for name, n_env_groups in WAYS.items()}
        for round_index in range(args.rounds + 1):
            for name, runner in runners.items():  # in turns, so that noise of the machine meets both alike
                runner.run(policy)
                for part in ("start", "policy", "wait", "run"):
                    seconds = clock.take(part)
                    if round_index or part == "start":  # the first round warms up, and starts the processes
                        figures[name][part] += seconds
        for runner in runners.values():
            runner.close()
    report(args, figures)


def report(args: argparse.Namespace, figures: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n{args.episodes} Push-T episodes of {args.max_steps} steps on {DEVICE}, {args.rounds} rounds")
    print(f"  {'':34}{'start-up':>10}{'median':>10}{'min':>10}{'max':>10}{'ratio':>8}")
    baseline = None
    for name, parts in figures.items():
        median = statistics.median(parts["run"])
        baseline = baseline or median
        seconds = [sum(parts["start"]), median, min(parts["run"]), max(parts["run"])]
        print(f"  {name:<34}" + "".join(f"{value:>9.2f}s" for value in seconds) + f"{baseline / median:>7.1f}x")
    print(f"\n  {'ms: median (5 %, 95 %)':34}{'a policy call':>28}{'a wait for the simulators':>28}")
    for name, parts in figures.items():
        print(f"  {name:<34}{summary(parts['policy']):>28}{summary(parts['wait']):>28}")


if __name__ == "__main__":
    main()
