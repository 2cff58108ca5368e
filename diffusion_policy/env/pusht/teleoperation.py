"""Collecting Push-T demonstrations with the mouse."""

import numpy as np
import pygame

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.demonstration_recorder import (
    Arrays,
    recorded_action,
    recorded_observation,
    stack_steps,
)
from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv


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


def record_episode(env: PushTKeypointsEnv, operator: Operator, seed: int, control_hz: float) -> Arrays | None:
    """The episode from `seed` until success, retried as often as asked; None if the operator quits."""
    clock = pygame.time.Clock()
    agent = env.teleop_agent(lambda: operator.mouse)
    operator.retry, done = True, False
    while not done:
        if operator.retry:
            obs, info = env.reset(seed=seed)
            image = env.render("human")
            steps: list[Arrays] = []
            operator.plan_index = 0
        pygame.display.set_caption(f"episode {seed}, plan_idx {operator.plan_index}")
        action = None if operator.paused else agent.act(obs)
        if action is not None:
            seen = {"img": image.astype(np.float32), **recorded_observation(obs, info)}
            obs, _, done, _, info = env.step(action)
            image = env.render("human")
            steps.append(seen | recorded_action(action, info))
        clock.tick(control_hz)
        operator.read_events()
        if operator.quit and not done:
            return None
    return stack_steps(steps)
