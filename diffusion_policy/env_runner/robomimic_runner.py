"""What rollouts of robomimic's tasks share, whatever the policy observes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.common.robomimic_hdf5 import read_env_args, read_init_states
from diffusion_policy.env.robomimic.env_meta import EnvMeta, check_env_meta
from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.gym_util.multistep_wrapper import MultiStepWrapper
from diffusion_policy.model.common.absolute_actions import AbsoluteActions

CONTROL_HZ = 20


class RobomimicRunner(RolloutRunner):
    """Rolls out in robosuite: first from states that demonstrations began in, then from seeds.

    The score of an episode is its best reward, which is 1 once the task is accomplished.

    Args:
        dataset_path: demonstrations (HDF5), of which the first episodes take their beginnings.
        abs_action: the policy's actions are poses, see AbsoluteActions.
        n_train: number of episodes that begin as demonstrations from `train_start_idx` on; `n_train_vis` are recorded.
        n_test: number of episodes with seeds from `test_start_seed`, of which `n_test_vis` are recorded.
        rollout: as of RolloutRunner.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        dataset_path: str | Path,
        abs_action: bool,
        n_train: int,
        n_train_vis: int,
        train_start_idx: int,
        n_test: int,
        n_test_vis: int,
        test_start_seed: int,
        fps: int,
        **rollout: Any,
    ) -> None:
        self.abs_action = abs_action
        states = read_init_states(dataset_path, train_start_idx, n_train) if n_train else []
        train = [
            Episode("train/", train_start_idx + i, record=i < n_train_vis, init=_begin_in(state))
            for i, state in enumerate(states)
        ]
        test = [
            Episode("test/", test_start_seed + i, record=i < n_test_vis, init=_begin_in(None)) for i in range(n_test)
        ]
        super().__init__(
            output_dir, episodes=train + test, fps=fps, steps_per_render=max(CONTROL_HZ // fps, 1), **rollout
        )

    def env_action(self, action: NDArray[Any]) -> NDArray[Any]:
        return self.undo_transform_action(action) if self.abs_action else action

    def undo_transform_action(self, action: NDArray[Any]) -> NDArray[Any]:
        """Poses `(..., 10)`, or `(..., 20)` for two arms, as robosuite takes them, `(..., 7)` or `(..., 14)`."""
        return AbsoluteActions().to_env(action)


def read_env_meta(dataset_path: str | Path) -> EnvMeta:
    """What a dataset says of its environment, checked."""
    return check_env_meta(read_env_args(dataset_path), str(dataset_path))


def _begin_in(state: NDArray[np.float64] | None) -> Callable[[MultiStepWrapper], None]:
    def init(env: MultiStepWrapper) -> None:
        env.unwrapped.init_state = state  # type: ignore[attr-defined]

    return init
