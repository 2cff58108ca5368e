"""Collecting Push-T demonstrations with the mouse."""

from typing import Any

import numpy as np
import pygame
from numpy.typing import NDArray

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

Episode = dict[str, NDArray[np.float32]]


class Operator:
    """What the person at mouse and keyboard asks for, as pygame's events tell it.

    R asks to retry, Q (or closing the window) to quit; a held space bar pauses and begins the next part of the plan.
    """

    def __init__(self) -> None:
        self.mouse = (0, 0)
        self.plan_index = 0
        self.paused = False
        self.retry = False
        self.quit = False

    def read_events(self) -> None:
        """Takes what has happened since the last call."""
        self.retry = False
        for event in pygame.event.get():
            if event.type == pygame.MOUSEMOTION:
                self.mouse = event.pos
            elif event.type == pygame.QUIT:
                self.quit = True
            elif event.type == pygame.KEYUP and event.key == pygame.K_SPACE:
                self.paused = False
            elif event.type == pygame.KEYDOWN:
                self._press(event.key)

    def _press(self, key: int) -> None:
        if key == pygame.K_SPACE:
            self.paused = True
            self.plan_index += 1
        elif key == pygame.K_r:
            self.retry = True
        elif key == pygame.K_q:
            self.quit = True


def collect_demonstrations(env: PushTKeypointsEnv, replay_buffer: ReplayBuffer, control_hz: float) -> None:
    """Appends episodes to `replay_buffer` until the operator quits; each starts from its index as seed.

    Keys, shapes and types are those of the published dataset. An episode ends when the block covers the goal; one that
    the operator leaves before is not kept.
    """
    operator = Operator()
    try:
        while (episode := record_episode(env, operator, replay_buffer.n_episodes, control_hz)) is not None:
            replay_buffer.add_episode(episode, compressors="disk")
    finally:
        env.close()


def record_episode(env: PushTKeypointsEnv, operator: Operator, seed: int, control_hz: float) -> Episode | None:
    """The episode from `seed` until success, retried as often as asked; None if the operator quits."""
    clock = pygame.time.Clock()
    agent = env.teleop_agent(lambda: operator.mouse)
    operator.retry, done = True, False
    while not done:
        if operator.retry:
            obs, info = env.reset(seed=seed)
            image = env.render("human")
            steps: list[Episode] = []
            operator.plan_index = 0
        pygame.display.set_caption(f"episode {seed}, plan_idx {operator.plan_index}")
        action = None if operator.paused else agent.act(obs)
        if action is not None:
            steps.append(_observed(image, obs, info) | {"action": action.astype(np.float32)})
            obs, _, done, _, info = env.step(action)
            image = env.render("human")
            steps[-1]["n_contacts"] = np.array([info["n_contacts"]], dtype=np.float32)
        clock.tick(control_hz)
        operator.read_events()
        if operator.quit and not done:
            return None
    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}


def _observed(image: NDArray[np.uint8], obs: NDArray[np.float64], info: dict[str, Any]) -> Episode:
    """`img` (S, S, 3) in [0, 255], `state` (5,) and the block's `keypoint` (9, 2), as published."""
    x, y, angle = info["block_pose"]
    positions, _mask = np.split(obs, 2)
    return {
        "img": image.astype(np.float32),
        "state": np.array([*info["pos_agent"], x, y, angle % (2 * np.pi)], dtype=np.float32),
        "keypoint": positions.reshape(-1, 2)[:-1].astype(np.float32),
    }
