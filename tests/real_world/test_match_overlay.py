from pathlib import Path

import numpy as np
import pytest
from recordings import frame, mean_difference, write_recordings

from diffusion_policy.real_world.match_overlay import MatchOverlay


def test_episodes_are_matched_in_turn_or_one_is_chosen(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "demo", lengths=(2, 2, 2))
    image = np.full((32, 48, 3), 100, np.uint8)
    for number, matched in [(1, 1), (5, 2)]:
        assert mean_difference(MatchOverlay(folder, camera=2)(image, number), (100 + frame(matched, 2, 0)) / 2) < 2
    chosen = MatchOverlay(folder, camera=0, episode=1)
    assert mean_difference(chosen(image, 0), (100 + frame(1, 0, 0)) / 2) < 2
    assert chosen(np.zeros((24, 24, 3), np.uint8), 0).shape == (24, 24, 3)
    with pytest.raises(ValueError, match="has 3 episodes: no 7 to match"):
        MatchOverlay(folder, camera=0, episode=7)
    with pytest.raises(FileNotFoundError, match="3 videos are missing"):
        MatchOverlay(folder, camera=1)
