"""Overrides that make a training run last seconds."""

_RUN = [
    "training.device=cpu",
    "training.num_epochs=2",
    "training.max_train_steps=4",
    "training.max_val_steps=1",
    "training.lr_warmup_steps=2",
    "training.rollout_every=1",
    "task.env_runner.n_train=0",
    "task.env_runner.n_train_vis=0",
    "task.env_runner.n_test=2",
    "task.env_runner.n_test_vis=0",
    "task.env_runner.max_steps=16",
    "dataloader.batch_size=8",
    "val_dataloader.batch_size=8",
    "logging.mode=disabled",
]
_IMAGES = [
    "task=pusht_image",
    "training.max_train_steps=3",
    "dataloader.batch_size=2",
    "dataloader.num_workers=1",
    "val_dataloader.batch_size=2",
    "val_dataloader.num_workers=1",
]
_STEPS = "policy.num_inference_steps=2"
_UNET = ["down_dims=[8,16]", "diffusion_step_embed_dim=8"]
_TRANSFORMER = ["n_layer=1", "n_head=2", "n_emb=8"]
_SEARCH = ["train_n_neg=4", "pred_n_iter=2", "pred_n_samples=8"]
_BINS = ["action_ae.num_bins=4", "state_prior.n_layer=1", "state_prior.n_head=2", "state_prior.n_embd=8"]

_SMALLER = ["policy.obs_encoder.resize_shape=[96,96]", "policy.obs_encoder.crop_shape=[84,84]"]

# What configs ask for whose names contain the key.
_SPECIAL = {
    # Crops of the robot's images are larger than the images of Push-T.
    "real_hybrid": ["policy.crop_shape=[84,84]"],
    "robomimic_real": ["policy.crop_shape=[84,84]"],
    "unet_franka_image": _SMALLER,
    "unet_real_image": _SMALLER,
    # Checkpoints are chosen by what is sampled.
    "ibc_dfo_real": ["training.sample_every=1"],
    # Nothing is downloaded.
    "pretrained": ["policy.obs_encoder.rgb_model.weights=null", "policy.obs_encoder.resize_shape=[64,64]"],
    # Nothing is cropped, and convolutions over time as well are slow.
    "video": [
        "training.max_train_steps=1",
        "policy.rgb_net.backbone.model_depth=18",
        "task.image_shape=[3,32,32]",
        "+task.env_runner.render_size=32",
    ],
}


def sees_images(config: str) -> bool:
    """Whether a config's policies see images, else states."""
    return config != "quickstart" and "lowdim" not in config


def tiny(config: str) -> list[str]:
    """The overrides that fit a config, of Push-T's tasks the one that does, included."""
    return [
        *_RUN,
        *(_IMAGES if sees_images(config) else ["task=pusht_lowdim"]),
        *_of_method(config),
        *(override for part, overrides in _SPECIAL.items() if part in config for override in overrides),
    ]


def _of_method(config: str) -> list[str]:
    if "robomimic" in config:
        return []  # the size of its network is given
    if "ibc" in config or "bet" in config:
        return [f"policy.{override}" for override in (_SEARCH if "ibc" in config else _BINS)]
    denoiser = "policy" if sees_images(config) else "policy.model"
    return [_STEPS, *(f"{denoiser}.{override}" for override in (_TRANSFORMER if "transformer" in config else _UNET))]


TINY = tiny("quickstart")
