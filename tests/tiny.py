"""Overrides that make a training run last seconds."""

_RUN = [
    "training.device=cpu",
    "training.num_epochs=2",
    "training.max_train_steps=4",
    "training.max_val_steps=1",
    "training.lr_warmup_steps=2",
    "training.rollout_every=1",
    "policy.num_inference_steps=2",
    "task.env_runner.n_train=0",
    "task.env_runner.n_train_vis=0",
    "task.env_runner.n_test=2",
    "task.env_runner.n_test_vis=0",
    "task.env_runner.max_steps=16",
    "dataloader.batch_size=8",
    "val_dataloader.batch_size=8",
    "logging.mode=disabled",
]
_UNET = ["policy.model.down_dims=[8,16]", "policy.model.diffusion_step_embed_dim=8"]
_TRANSFORMER = ["policy.model.n_layer=1", "policy.model.n_head=2", "policy.model.n_emb=8"]


def tiny(config: str) -> list[str]:
    """The overrides that fit a config."""
    return [*_RUN, *(_TRANSFORMER if "transformer" in config else _UNET)]


TINY = tiny("quickstart")
