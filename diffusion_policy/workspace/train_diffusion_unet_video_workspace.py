"""Training of the CNN-based diffusion policy on clips."""

from diffusion_policy.workspace.train_workspace import TrainWorkspace


class TrainDiffusionUnetVideoWorkspace(TrainWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
