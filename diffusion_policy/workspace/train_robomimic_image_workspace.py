"""Training of robomimic's BC-RNN-GMM on images and vectors."""

from diffusion_policy.workspace.recurrent_workspace import RecurrentWorkspace


class TrainRobomimicImageWorkspace(RecurrentWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
