import pytest
import torch
import torch.nn.functional as F
from noisy_regression import Training, make_batches
from torch import nn
from training_processes import run_together

from diffusion_policy.common.distributed import rank, world_size
from diffusion_policy.workspace.gradient_mean import GradientMean


class Regression(nn.Module):
    """Draws nothing, so that parts of a batch have the gradients they have in the whole; not all of it is used."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 16).requires_grad_(False)
        self.decoder = nn.Sequential(
            nn.Conv1d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Mish(), nn.Conv1d(32, 2, 1)
        )
        self.decoder[0].weight.data = torch.randn(3, 16, 32).permute(2, 1, 0)  # not contiguous
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(2, dtype=torch.float64))

    @property
    def device(self):
        return self.encoder.weight.device

    def compute_losses(self, batch):
        prediction = self.decoder(self.encoder(batch["obs"]["state"]).mT).mT * self.scale
        return {"loss": F.mse_loss(prediction, batch["action"].double())}


def _part(batch):
    size = len(batch["action"]) // world_size()
    rows = slice(rank() * size, (rank() + 1) * size)
    return {"obs": {"state": batch["obs"]["state"][rows]}, "action": batch["action"][rows]}


def _train(batches, bucket_bytes=1e6, **kwargs):
    training = Training(model_class=Regression, **kwargs)
    if world_size() > 1:
        training.kwargs["gradient_mean"] = GradientMean(training.model.parameters(), bucket_bytes)
    losses = training.train([_part(batch) for batch in batches])
    return losses, training.weights()


@pytest.mark.parametrize("bucket_bytes", [1, 1e6])
@pytest.mark.parametrize(("accumulate", "max_grad_norm"), [(1, None), (3, 0.05)])
def test_processes_with_parts_of_a_batch_train_as_one_with_all_of_it(bucket_bytes, accumulate, max_grad_norm):
    batches = make_batches([12] * 6)
    losses, weights = _train(batches, accumulate=accumulate, max_grad_norm=max_grad_norm)
    results = run_together(
        lambda: _train(batches, bucket_bytes, accumulate=accumulate, max_grad_norm=max_grad_norm), n=3
    )
    mean = torch.stack([result[0] for result in results]).mean(0)
    torch.testing.assert_close(mean, losses, rtol=1e-5, atol=0)
    assert weights["model.unused.weight"].equal(Training(model_class=Regression).weights()["model.unused.weight"])
    for name, value in weights.items():
        torch.testing.assert_close(results[0][1][name], value, rtol=1e-4, atol=1e-5, msg=name)
        for _, others in results[1:]:
            assert torch.equal(others[name], results[0][1][name]), name


def test_gradients_that_only_some_processes_have_are_refused():
    def train():
        model = Regression()
        inputs = model.scale if rank() == 0 else model.unused.weight
        with GradientMean(model.parameters()).in_backward():
            inputs.sum().backward()

    with pytest.raises(RuntimeError, match="other parameters have gradients in this process than in the others"):
        run_together(train)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ("scale", "unused.weight", r"of shape \(3, 3\) has a gradient that had none in the first step"),
        ("unused.weight", None, r"of shape \(3, 3\) has no gradient, and had one in the first step"),
    ],
)
def test_gradients_that_come_and_go_are_refused(first, then, message):
    def train():
        model = Regression()
        mean = GradientMean(model.parameters())
        for name in (first, then):
            model.zero_grad()
            with mean.in_backward():
                if name is not None:
                    model.get_parameter(name).sum().backward()

    with pytest.raises(RuntimeError, match=message):
        run_together(train)
