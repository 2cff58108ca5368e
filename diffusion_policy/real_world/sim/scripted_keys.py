"""The keys that the scripted operator presses while it demonstrates."""

import logging
import time
from typing import Self

from diffusion_policy.real_world.sim.rig import SimulatedRig
from diffusion_policy.real_world.sim.scripted_operator import ScriptedOperator

log = logging.getLogger(__name__)

LONGEST_EPISODE = 120.0  # s


class ScriptedKeys:
    """An `OperatorKeys`: begins an episode, saves it when the operator is done, and quits after `n_episodes`.

    Args:
        rig: where the block is put elsewhere before each episode.
        operator: who drives.
        seed: of where the block is in the first.
    """

    def __init__(self, rig: SimulatedRig, operator: ScriptedOperator, n_episodes: int, seed: int) -> None:
        self._rig, self._operator, self._n_episodes, self._seed = rig, operator, n_episodes, seed
        self._n_begun = 0
        self._begin_time: float | None = None

    def pressed(self) -> list[str]:
        if self._begin_time is None:
            return ["q"] if self._n_begun == self._n_episodes else self._begin()
        if time.monotonic() - self._begin_time > LONGEST_EPISODE:
            log.warning("The block is not at its goal after %g s: the operator gives up", LONGEST_EPISODE)
            self._operator.give_up()
        if not self._operator.is_done:
            return []
        self._begin_time = None
        log.info("The block covers %.0f %% of its goal", 100 * self._rig.world.state().coverage())
        return ["s"]

    def _begin(self) -> list[str]:
        self._rig.world.reset(self._seed + self._n_begun)
        self._operator.begin()
        self._n_begun += 1
        self._begin_time = time.monotonic()
        return ["c"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        pass
