"""Configs as published beside experiments: one yaml with the original's keys and values, by the real command."""

import json
import subprocess
import sys

import pytest
import yaml
from tiny import tiny
from training_log import read_log

from diffusion_policy.common.checkpoint_file import read_checkpoint

pytestmark = pytest.mark.slow


def _published(facts, name, task):
    """The original's resolved config with a task that fits it."""
    method = facts["train"][name]
    cfg = {**method["resolved"], "hydra": method["hydra_section"]}
    section = method["combos"][task].get("task_resolved", cfg["task"])
    if "shape_meta" in section:
        cfg |= {"shape_meta": section["shape_meta"], "policy": {**cfg["policy"], "shape_meta": section["shape_meta"]}}
    return {**cfg, "task": section, "task_name": task}


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("train_diffusion_unet_lowdim_workspace", "pusht_lowdim"),
        ("train_diffusion_unet_hybrid_workspace", "pusht_image"),
    ],
)
def test_a_published_config_trains_unchanged(repository, compat, few_demonstrations, tmp_path, name, task):
    facts = json.loads((compat / "configs.json").read_text())
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(_published(facts, name, task), sort_keys=False))
    size = [override for override in tiny(name) if not override.startswith("task=")]
    done = subprocess.run(
        [
            *(sys.executable, repository / "train.py", "--config-dir=.", "--config-name=experiment.yaml"),
            *(*size, f"task.dataset.zarr_path={few_demonstrations}", "hydra.run.dir=run"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    n_steps = 4 if task == "pusht_lowdim" else 3
    assert [record["global_step"] for record in read_log(tmp_path / "run")] == list(range(2 * n_steps))
    payload = read_checkpoint(tmp_path / "run" / "checkpoints" / "latest.ckpt")
    assert payload["values"]["epoch"] == 2
    assert payload["cfg"]["task"]["name"] == task
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
