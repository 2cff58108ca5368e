"""A model small enough to train in a test that has what policies have: noise, dropout, norms, a part left untrained."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from diffusion_policy.common.random_state import seed_everything
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.fused_adam import fuse_adam
from diffusion_policy.workspace.train_step import TrainStep


class NoisyRegression(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 16).requires_grad_(False)
        self.decoder = nn.Sequential(
            *(nn.Conv1d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Mish(), nn.Dropout(0.1)),
            *(nn.Conv1d(32, 32, 3, padding=1, bias=False), nn.BatchNorm1d(32), nn.Mish(), nn.Conv1d(32, 2, 1)),
        )

    @property
    def device(self):
        return self.encoder.weight.device

    def compute_loss(self, batch):
        features = self.encoder(batch["obs"]["state"]).mT
        features = features + 0.1 * torch.randn(features.shape, device=features.device)
        return F.mse_loss(self.decoder(features).mT, batch["action"])

    def compute_losses(self, batch):
        return {"loss": self.compute_loss(batch)}


def make_batches(sizes, device="cpu"):
    """Batches of these sizes: the actions are a function of the observations, so there is something to learn."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    for size in sizes:
        state = torch.randn(size, 8, 4, generator=generator)
        action = torch.stack((state.sum(-1), state.prod(-1)), dim=-1)
        batches.append({"obs": {"state": state.to(device)}, "action": action.to(device)})
    return batches


class Training:
    """A model, what trains it, and its state as a checkpoint holds it."""

    def __init__(self, device="cpu", seed=0, model_class=NoisyRegression, optimizer_class=AdamW, **kwargs):
        seed_everything(seed)
        self.model = model_class().to(device)
        self.averaged = model_class().to(device)
        self.averaged.load_state_dict(self.model.state_dict())
        self.ema = EMAModel(self.averaged, power=0.75)
        self.optimizer = optimizer_class(self.model.parameters(), lr=1e-2)
        self.lr_scheduler = LambdaLR(self.optimizer, lambda step: 0.95**step)
        self.kwargs = kwargs
        self.n_steps = 0
        self.step = None

    def train(self, batches):
        """The losses of one step for each batch, read after the last of them."""
        if self.step is None:
            fuse_adam(self.optimizer)
            self.step = TrainStep(self.model, self.optimizer, self.lr_scheduler, self.ema, **self.kwargs)
        losses = []
        for batch in batches:
            losses.append(self.step(batch, self.n_steps)["loss"])
            self.n_steps += 1
        return torch.stack(losses).cpu()

    @property
    def _parts(self):
        return (self.model, self.averaged, self.ema, self.optimizer, self.lr_scheduler)

    def save(self, path):
        states = [part.state_dict() for part in self._parts]
        torch.save([states, self.n_steps, torch.get_rng_state(), torch.cuda.get_rng_state_all()], path)

    def load(self, path):
        states, self.n_steps, rng_state, cuda_rng_states = torch.load(path, map_location="cpu", weights_only=True)
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)
        torch.set_rng_state(rng_state)
        torch.cuda.set_rng_state_all(cuda_rng_states)

    def weights(self):
        """Parameters and statistics of the model and of its average, by name, on the CPU."""
        models = {"model": self.model, "averaged": self.averaged}
        return {f"{k}.{name}": v.cpu().clone() for k, model in models.items() for name, v in model.state_dict().items()}
