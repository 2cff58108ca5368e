"""Names, parameters and their order against those of the original, for every module that is here."""

import importlib
import importlib.util
import inspect
import json

import pytest

# What is left out or differs on purpose; the README's section for people who come from the original says why.
DIFFERENT = {
    "env.block_pushing.block_pushing.BlockPush.save_state",  # each reset builds the scene anew
    "env.block_pushing.block_pushing.BlockPushNormalized",  # policies carry their own normalizer
    "env.block_pushing.block_pushing.build_env_name",  # names in a registry of gym's
    "env.block_pushing.block_pushing_multimodal.build_env_name",
    "env.block_pushing.block_pushing.sleep_spin",  # waiting, for one who watches pybullet's window
    "env.block_pushing.oracles.oriented_push_oracle.OrientedPushNormalizedOracle",
    "env.block_pushing.utils.utils_pybullet.add_visual_sphere",  # tools of that window, and files of states
    "env.block_pushing.utils.utils_pybullet.decompose_view_matrix",
    "env.block_pushing.utils.utils_pybullet.get_workspace",
    "env.block_pushing.utils.utils_pybullet.image_xy_to_view_ray",
    "env.block_pushing.utils.utils_pybullet.matrix_to_rotation",
    "env.block_pushing.utils.utils_pybullet.pybullet_mat_to_numpy_4x4",
    "env.block_pushing.utils.utils_pybullet.ray_to_plane_test",
    "env.block_pushing.utils.utils_pybullet.read_pybullet_state",
    "env.block_pushing.utils.utils_pybullet.reset_camera_pose",
    "env.block_pushing.utils.utils_pybullet.rotation_to_matrix",
    "env.block_pushing.utils.utils_pybullet.view_ray_to_world_ray",
    "env.block_pushing.utils.utils_pybullet.world_obj_to_view",
    "env.block_pushing.utils.utils_pybullet.write_pybullet_state",
    "env.kitchen.base.KitchenBase",  # gymnasium-robotics' kitchen, without D4RL's downloads and scores
    "env.kitchen.kitchen_lowdim_wrapper.KitchenLowdimWrapper.seed",  # reset(seed=)
    "gym_util.multistep_wrapper.repeated_box",  # the same function as repeated_space
    "gym_util.sync_vector_env.SyncVectorEnv.reset_wait",  # gymnasium's vector envs have reset and step
    "gym_util.sync_vector_env.SyncVectorEnv.step_async",
    "gym_util.sync_vector_env.SyncVectorEnv.step_wait",
    "model.bet.action_ae.AbstractActionAE",  # there is one kind of bins, and one model of them
    "model.common.normalizer.SingleFieldLinearNormalizer.fit",  # takes them in this order, by *args
    "model.diffusion.mask_generator.DummyMaskGenerator",  # nothing uses these
    "model.diffusion.mask_generator.KeypointMaskGenerator",
    "model.diffusion.mask_generator.get_intersection_slice_mask",
    "model.diffusion.mask_generator.get_union_slice_mask",
    "model.vision.crop_randomizer.CropRandomizer",  # one crop of an image, without channels for its place
    "model.vision.crop_randomizer.sample_random_image_crops",
    "policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy.conditional_sample",  # one for all policies
    "policy.diffusion_unet_image_policy.DiffusionUnetImagePolicy.conditional_sample",
    "policy.diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy.conditional_sample",
    "policy.diffusion_unet_video_policy.DiffusionUnetVideoPolicy.conditional_sample",
    "policy.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy.conditional_sample",
    "policy.diffusion_transformer_hybrid_image_policy.DiffusionTransformerHybridImagePolicy.conditional_sample",
    "policy.bet_lowdim_policy.BETLowdimPolicy.get_latents",  # the original's cannot run
    "policy.robomimic_image_policy.RobomimicImagePolicy.on_epoch_end",  # trained by compute_loss, like the others
    "policy.robomimic_image_policy.RobomimicImagePolicy.train_on_batch",
    "policy.robomimic_lowdim_policy.RobomimicLowdimPolicy.train_on_batch",
    "shared_memory.shared_ndarray.SharedNDArray.__del__",  # the memory frees itself
    "real_world.single_realsense.Command",  # what cameras are told are calls, which are answered
    "real_world.video_recorder.VideoRecorder.__del__",  # the file is whole up to its last frame anyway
    "workspace.base_workspace.BaseWorkspace.save_snapshot",  # pickled code
    "workspace.base_workspace.BaseWorkspace.create_from_snapshot",
}


def _exists(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _expected(facts):
    """Pairs of dotted name and the parameters it has (None: any)."""
    for module, spec in facts.items():
        if module.startswith("_") or not _exists(module):
            continue
        for cls, members in spec.get("classes", {}).items():
            yield f"{module}.{cls}", members.get("init")
            for method, signature in members.get("methods", {}).items():
                yield f"{module}.{cls}.{method}", signature["params"]
            for name in members.get("properties", []):
                yield f"{module}.{cls}.{name}", None
        for function, signature in spec.get("functions", {}).items():
            if function not in ("main", "test"):  # what the original's files run as scripts
                yield f"{module}.{function}", signature["params"]


def _find(name):
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        module = ".".join(parts[:n])
        if _exists(module):
            found = importlib.import_module(module)
            for part in parts[n:]:
                found = getattr(found, part)
            return found
    raise ImportError(name)


def test_names_and_parameters_are_those_of_the_original(compat, display):  # without which pynput is not imported
    facts = json.loads((compat / "signatures.json").read_text())
    checked = 0
    for full_name, params in _expected(facts):
        name = full_name.removeprefix("diffusion_policy.")
        if any(f"{name}.".startswith(f"{other}.") for other in DIFFERENT):
            continue
        found = _find(full_name)
        checked += 1
        if params is not None:
            wanted = [p["name"] for p in params if p.get("kind") not in ("var_keyword", "var_positional")]
            actual = [p for p in inspect.signature(found).parameters if p != "self"]
            assert actual[: len(wanted)] == wanted, name
    assert checked > 150


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_differences_name_what_the_original_has(compat, name):
    facts = json.loads((compat / "signatures.json").read_text())
    assert f"diffusion_policy.{name}" in dict(_expected(facts))
