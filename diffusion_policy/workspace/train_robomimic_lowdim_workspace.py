"""Training of robomimic's BC-RNN-GMM on low-dimensional observations."""

from diffusion_policy.workspace.recurrent_workspace import RecurrentWorkspace


class TrainRobomimicLowdimWorkspace(RecurrentWorkspace):
    """Adds nothing: the name that configs and checkpoints of the field refer to."""
