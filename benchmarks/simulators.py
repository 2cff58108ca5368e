"""How many steps a core takes in each family of simulated tasks; `rollout.py` prints it."""

import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SECONDS = 3.0
"""For which each simulator steps."""


def _pusht_keypoints() -> Any:
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

    return PushTKeypointsEnv()


def _pusht_image() -> Any:
    from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv

    return PushTImageEnv()


def _robomimic(task: str) -> Any:
    from diffusion_policy.env.robomimic.demonstrations import make_env_meta
    from diffusion_policy.env.robomimic.robomimic_lowdim_wrapper import RobomimicLowdimWrapper, create_env

    return RobomimicLowdimWrapper(create_env(make_env_meta(task), ["object"]), ["object"])


def _kitchen() -> Any:
    from diffusion_policy.env.kitchen.v0 import KitchenAllV0

    return KitchenAllV0()


def _block_pushing() -> Any:
    from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal

    return BlockPushMultimodal()


FAMILIES: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "Push-T, keypoints": ("pymunk", _pusht_keypoints),
    "Push-T, images": ("pymunk", _pusht_image),
    "robomimic, lift from state": ("robosuite", lambda: _robomimic("lift")),
    "robomimic, can from state": ("robosuite", lambda: _robomimic("can")),
    "kitchen": ("gymnasium_robotics", _kitchen),
    "block pushing": ("pybullet", _block_pushing),
}
"""By family: the package that its simulator needs, and what makes an environment."""


def print_rates() -> None:
    """Prints steps a second of wall and of processor time, one environment in this process, actions at random."""
    print(f"\n  {'environment steps a second, one core':38}{'wall':>10}{'processor':>11}")
    for family, (package, make) in FAMILIES.items():
        if importlib.util.find_spec(package) is None:
            print(f"  {family:38}needs {package}: pip install 'diffusion_policy[sim]'")
            continue
        env = make()
        env.reset(seed=0)
        actions = _actions(env)
        env.step(actions[0])  # compiles and allocates
        steps, wall, processor = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < SECONDS:
            env.step(actions[steps % len(actions)])
            steps += 1
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        env.close()
        print(f"  {family:38}{steps / wall:>10.0f}{steps / processor:>11.0f}", flush=True)


def _actions(env: Any) -> np.ndarray:
    """Some, `(20, Da)`."""
    env.action_space.seed(0)
    return np.stack([env.action_space.sample() for _ in range(20)])
