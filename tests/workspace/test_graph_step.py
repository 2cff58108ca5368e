"""Training steps as CUDA graphs; needs a GPU."""

import logging
import os

import pytest
import torch
from noisy_regression import NoisyRegression, Training, make_batches
from torch.optim import SGD

from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.step_choices import choose_precision, choose_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = "cuda"
SIZES = [16, 16, 16, 16, 5] * 6


def _trained(sizes=SIZES, **kwargs):
    training = Training(GPU, **kwargs)
    return training, training.train(make_batches(sizes, GPU))


def _assert_close(training, other, rtol=1e-3):
    for name, value in other.weights().items():
        torch.testing.assert_close(training.weights()[name], value, rtol=rtol, atol=rtol, msg=name)


class _Messages(logging.Handler):
    """Collects what the train step logs."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())

    def __enter__(self):
        self.logger = logging.getLogger("diffusion_policy.workspace")
        self.level_before = self.logger.level
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)
        return self.messages

    def __exit__(self, *args):
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level_before)


class _Waits(NoisyRegression):
    """Reads a tensor on the CPU, which no graph can hold."""

    def compute_loss(self, batch):
        loss = super().compute_loss(batch)
        assert loss.item() >= 0
        return loss


class _WaitsUnseen(NoisyRegression):
    """Waits in a way that torch does not tell of: only the capture fails, in its middle."""

    def compute_loss(self, batch):
        loss = super().compute_loss(batch)
        torch.cuda.synchronize()
        return loss


@pytest.mark.parametrize(("accumulate", "max_grad_norm"), [(1, None), (1, 0.5), (3, None), (3, 0.5), (2, 0.5)])
def test_graphs_train_as_eager_steps_do(accumulate, max_grad_norm):
    """Also the last, smaller batch of each epoch, which has a graph of its own."""
    settings = {"accumulate": accumulate, "max_grad_norm": max_grad_norm}
    eager, expected = _trained(step="eager", **settings)
    with _Messages() as messages:
        graph, losses = _trained(step="graph", **settings)
    assert messages == ["Training steps are replayed from a CUDA graph"]
    assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-5)
    _assert_close(graph, eager)
    assert graph.step.lr == eager.step.lr
    assert graph.ema.state_dict() == eager.ema.state_dict()


def test_auto_is_a_graph():
    with _Messages() as messages:
        _, losses = _trained(step="auto")
    assert messages == ["Training steps are replayed from a CUDA graph"]
    assert torch.equal(losses, _trained(step="graph")[1])


def test_a_seed_gives_the_same_bits():
    for precision in (torch.float32, torch.bfloat16):
        first, losses = _trained(step="graph", precision=precision)
        second, losses_again = _trained(step="graph", precision=precision)
        assert torch.equal(losses, losses_again)
        for name, value in first.weights().items():
            assert torch.equal(second.weights()[name], value), name
        assert not torch.equal(losses, _trained(step="graph", precision=precision, seed=1)[1])


def test_bf16_comes_close():
    _, expected = _trained(step="graph")
    training, losses = _trained(step="graph", precision=torch.bfloat16)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0.01)
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}


def test_resumed_training_continues(tmp_path):
    batches = make_batches(SIZES, GPU)
    whole = Training(GPU, step="graph")
    losses = whole.train(batches)
    first = Training(GPU, step="graph")
    first.train(batches[:15])
    first.save(tmp_path / "state.pt")
    second = Training(GPU, seed=1, step="graph")
    second.load(tmp_path / "state.pt")
    torch.testing.assert_close(second.train(batches[15:]), losses[15:], rtol=1e-4, atol=1e-6)
    _assert_close(second, whole)


def test_a_state_is_as_that_of_eager_training(tmp_path):
    """Nothing of the capture is in it: it loads where there is no GPU, and continues there."""
    graph, _ = _trained([16] * 8, step="graph")
    eager, _ = _trained([16] * 8, step="eager")
    groups = [training.optimizer.state_dict()["param_groups"] for training in (graph, eager)]
    assert groups[0] == groups[1]
    assert isinstance(groups[0][0]["lr"], float)
    graph.save(tmp_path / "state.pt")
    on_cpu = Training(step="eager")
    on_cpu.load(tmp_path / "state.pt")
    assert torch.isfinite(on_cpu.train(make_batches([16]))).all()


def test_weights_that_a_replay_changes_are_seen_by_their_version():
    training, _ = _trained([16] * 8, step="graph")
    trained = [*training.model.decoder.parameters(), *training.averaged.parameters()]
    versions = [parameter._version for parameter in trained]
    training.train(make_batches([16], GPU))
    assert all(parameter._version > version for parameter, version in zip(trained, versions, strict=True))


@pytest.mark.parametrize("step", ["eager", "graph"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_no_step_waits_for_the_gpu(step, precision):
    batches = make_batches([16] * 12, GPU)
    training = Training(GPU, step=step, precision=precision, accumulate=2, max_grad_norm=0.5)
    training.train(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            training.step(batch, training.n_steps)
            training.n_steps += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("model_class", "reason"), [(_Waits, f"it waits for the GPU in {os.path.abspath(__file__)}"), (_WaitsUnseen, "")]
)
def test_what_cannot_be_captured_runs_eagerly(model_class, reason):
    eager, expected = _trained(model_class=model_class, step="eager")
    with _Messages() as messages:
        auto, losses = _trained(model_class=model_class, step="auto")
    assert len(messages) == 1
    assert messages[0].startswith(f"Training steps run one operation after the other, not as a CUDA graph: {reason}")
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-5)
    _assert_close(auto, eager)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    with pytest.raises(ConfigError, match=r"training.step=graph is not possible: .*; use auto or eager"):
        _trained(model_class=model_class, step="graph")
    # Nothing stays broken.
    assert torch.equal(_trained(step="graph")[1], _trained(step="graph")[1])


def test_an_optimizer_that_cannot_be_captured_runs_eagerly():
    with _Messages() as messages:
        _, losses = _trained(optimizer_class=SGD, step="auto")
    assert len(messages) == 1
    assert "SGD keeps numbers of each step on the CPU" in messages[0]
    torch.testing.assert_close(losses, _trained(optimizer_class=SGD, step="eager")[1], rtol=1e-3, atol=1e-5)
    with pytest.raises(ConfigError, match=r"training.step=graph is not possible: SGD"):
        _trained(optimizer_class=SGD, step="graph")


def test_choices_on_a_gpu():
    device = torch.device(GPU)
    assert choose_step("auto", device) == "auto"
    assert choose_step("graph", device) == "graph"
    is_recent = torch.cuda.get_device_capability(device) >= (8, 0)
    assert choose_precision("auto", device) == (torch.bfloat16 if is_recent else torch.float32)
