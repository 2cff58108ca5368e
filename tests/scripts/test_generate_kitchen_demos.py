import numpy as np
from click.testing import CliRunner

from diffusion_policy.env.kitchen.kitchen_util import parse_mjl_logs
from diffusion_policy.env.kitchen.v0 import KitchenAllV0
from diffusion_policy.scripts.generate_kitchen_demos import demonstration, main


def test_demonstrations_do_the_task_when_replayed(kitchen_demos):
    """What the motors were told, told again, ends in the same way."""
    obs, mask, qpos, qvel = (
        np.load(kitchen_demos / f"{name}.npy")
        for name in ("observations_seq", "existence_mask", "all_init_qpos", "all_init_qvel")
    )
    assert obs.shape == (*mask.shape, 60)
    assert not np.array_equal(qpos[0], qpos[1])
    env = KitchenAllV0(use_abs_action=True, robot_noise_ratio=0.0)
    for e, path in enumerate(sorted(kitchen_demos.glob("kitchen_demos_multitask/scripted/*.mjl"))):
        controls = parse_mjl_logs(path, skipamount=40)["ctrl"]
        assert len(controls) == mask[e].sum()
        assert not obs[e, len(controls) :].any()
        env.reset(seed=0)
        env.set_state(qpos[e], qvel[e])
        env.observe()
        assert sum(env.step(control)[1] for control in controls) >= 1
        assert env.completed[env.ALL_TASKS.index("light switch")]
    env.close()


def test_both_tasks_are_done_and_a_seed_repeats():
    env = KitchenAllV0()
    first, again, other = (demonstration(env, ("light switch", "slide cabinet"), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["obs"], again["obs"])
    np.testing.assert_array_equal(first["action"], again["action"])
    assert not np.array_equal(first["init_qpos"], other["init_qpos"])
    assert np.abs(first["action"]).max() <= 1
    env.close()


def test_what_is_there_is_not_overwritten(kitchen_demos):
    before = (kitchen_demos / "actions_seq.npy").read_bytes()
    result = CliRunner().invoke(main, ["-o", str(kitchen_demos), "-n", "1"])
    assert result.exit_code != 0
    assert "exists already" in result.output
    assert (kitchen_demos / "actions_seq.npy").read_bytes() == before
