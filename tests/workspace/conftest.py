"""Real training runs that last seconds: shipped demonstrations, a tiny network, few steps."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import tiny

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.workspace.train_workspace import TrainWorkspace

Make = Callable[..., TrainWorkspace]


@pytest.fixture
def make_workspace(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Builds the workspace that `train.py --config-name=quickstart ...` would run."""
    monkeypatch.chdir(repository)
    register_resolvers()

    def make(overrides: Sequence[str] = (), output_dir: Any = None, config: str = "quickstart") -> TrainWorkspace:
        with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
            cfg = compose(config, overrides=[*tiny(config), *overrides])
        OmegaConf.resolve(cfg)
        output_dir = Path(output_dir or tmp_path / "run")
        output_dir.mkdir(parents=True, exist_ok=True)
        return hydra.utils.get_class(cfg._target_)(cfg, output_dir=str(output_dir))

    yield make
    for path in tmp_path.rglob("*.ckpt"):  # pytest keeps the folders of some runs, and a ResNet's are large
        path.unlink()


@pytest.fixture(scope="session")
def few_demonstrations(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 60 steps of three of the demonstrations that ship with the repository: few images to draw."""
    shipped = ReplayBuffer.copy_from_path(repository / "assets" / "pusht_demo.zarr.zip")
    few = ReplayBuffer.create_empty_numpy()
    for i in range(3):
        few.add_episode({key: value[:60] for key, value in shipped.get_episode(i).items()})
    path = tmp_path_factory.mktemp("demonstrations") / "few.zarr"
    few.save_to_path(path)
    return path
