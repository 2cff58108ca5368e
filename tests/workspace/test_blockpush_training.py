"""Block pushing from demonstrations to scores, through the training that users run."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from training_log import read_log

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.workspace.evaluation import evaluate

pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")

from diffusion_policy.scripts.generate_bet_blockpush import main as generate

TASKS = ["blockpush_lowdim_seed", "blockpush_lowdim_seed_abs"]
SCORES = {"mean_score", "p1", "p2", "REACH_0", "REACH_1", "TARGET_0_0", "TARGET_0_1", "TARGET_1_0", "TARGET_1_1"}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two episodes for each task."""
    folder = tmp_path_factory.mktemp("block_pushing")
    paths = {task: folder / f"{task}.zarr" for task in TASKS}
    for task, path in paths.items():
        result = CliRunner().invoke(
            generate, ["-o", str(path), "-n", "2", *(["--abs_action"] if task.endswith("abs") else [])]
        )
        assert result.exit_code == 0, result.output
    return paths


@pytest.mark.parametrize("task", TASKS)
def test_task_trains_and_is_evaluated(make_workspace, demonstrations, tmp_path, task):
    overrides = [
        f"task={task}",
        f"task.dataset.zarr_path={demonstrations[task]}",
        "task.dataset.val_ratio=0.5",
        "task.env_runner.n_test_vis=1",
        "training.checkpoint_every=1",
    ]
    workspace = make_workspace(overrides)
    workspace.run()
    log = read_log(tmp_path / "run")
    assert [record["epoch"] for record in log][-1] == 1
    assert all(math.isfinite(record["train_loss"]) for record in log)
    scores = {key: value for key, value in log[-1].items() if key.startswith("test/")}
    assert {key.removeprefix("test/") for key in scores if "sim_max_reward" not in key} == SCORES
    assert {f"test/sim_max_reward_{seed}" for seed in (100000, 100001)} <= scores.keys()
    assert len(list((tmp_path / "run" / "media").glob("*.mp4"))) == 2  # one for each epoch

    evaluate(str(tmp_path / "run" / "checkpoints" / "latest.ckpt"), str(tmp_path / "eval"), "cpu", {})
    evaluated = json.loads((tmp_path / "eval" / "eval_log.json").read_text())
    assert {key: value for key, value in evaluated.items() if "video" not in key} == scores


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "config", ["train_diffusion_unet_lowdim_workspace", "train_diffusion_transformer_lowdim_workspace"]
)
def test_configs_fit_the_task(repository, demonstrations, tmp_path, config, task):
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy" / "config"), version_base=None):
        cfg = compose(config, overrides=[f"task={task}", f"task.dataset.zarr_path={demonstrations[task]}"])
    OmegaConf.resolve(cfg)
    sample = instantiate(cfg.task.dataset)[0]
    assert sample["obs"].shape == (cfg.horizon, cfg.obs_dim)
    assert sample["action"].shape == (cfg.horizon, cfg.action_dim)
    runner = instantiate(cfg.task.env_runner, output_dir=tmp_path)
    assert (len(runner.episodes), runner.max_steps) == (56, 350)
