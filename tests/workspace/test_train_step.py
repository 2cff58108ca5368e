import pytest
import torch
from noisy_regression import NoisyRegression, Training, make_batches
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW

from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.fused_adam import fuse_adam
from diffusion_policy.workspace.step_choices import choose_precision, choose_step

CPU = torch.device("cpu")


def _assert_close(actual, expected, rtol):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=rtol, atol=rtol, msg=name)


def _by_hand(batches, accumulate, max_grad_norm):
    """What `TrainStep` is to do, written down step by step."""
    training = Training()
    model, optimizer = training.model, training.optimizer
    losses = []
    for i, batch in enumerate(batches):
        loss = model.compute_loss(batch)
        (loss / accumulate).backward()
        if i % accumulate == accumulate - 1:
            if max_grad_norm is not None:
                assert clip_grad_norm_(model.parameters(), max_grad_norm) > max_grad_norm
            optimizer.step()
            optimizer.zero_grad()
            training.lr_scheduler.step()
        training.ema.step(model)
        losses.append(loss.detach())
    return torch.stack(losses), training.weights()


@pytest.mark.parametrize(
    ("step", "accumulate", "max_grad_norm"),
    [("eager", 1, None), ("eager", 1, 0.5), ("eager", 3, None), ("eager", 3, 0.5), ("compile", 2, 0.5)],
)
def test_equals_a_loop_written_by_hand(step, accumulate, max_grad_norm):
    batches = make_batches([8, 8, 8, 5] * 3)
    losses, weights = _by_hand(batches, accumulate, max_grad_norm)
    training = Training(step=step, accumulate=accumulate, max_grad_norm=max_grad_norm)
    torch.testing.assert_close(training.train(batches), losses, rtol=1e-5, atol=0)
    _assert_close(training.weights(), weights, rtol=1e-4)
    assert training.step.lr == pytest.approx(1e-2 * 0.95 ** (12 // accumulate))


@pytest.mark.parametrize("step", ["eager", "compile"])
def test_bf16_comes_close_and_keeps_weights_in_float32(step):
    batches = make_batches([32] * 10)
    expected = Training().train(batches)
    training = Training(step=step, precision=torch.bfloat16)
    losses = training.train(batches)
    assert losses.dtype == torch.float32
    assert not torch.equal(losses, expected)
    torch.testing.assert_close(losses, expected, rtol=0.02, atol=0)
    tensors = [*training.model.parameters(), *training.averaged.parameters()]
    tensors += [value for state in training.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("step", ["eager", "compile"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_resumed_training_equals_uninterrupted_training(tmp_path, step, precision):
    batches = make_batches([8] * 8)
    whole = Training(step=step, precision=precision)
    losses = whole.train(batches)
    first = Training(step=step, precision=precision)
    first.train(batches[:4])
    first.save(tmp_path / "state.pt")
    second = Training(seed=1, step=step, precision=precision)
    second.load(tmp_path / "state.pt")
    assert torch.equal(second.train(batches[4:]), losses[4:])
    for name, value in whole.weights().items():
        assert torch.equal(second.weights()[name], value), name


def test_changed_weights_are_seen_by_their_version():
    training = Training()
    training.train(make_batches([8]))
    trained = [*training.model.decoder.parameters(), *training.averaged.parameters()]
    versions = [parameter._version for parameter in trained]
    training.train(make_batches([8]))
    assert all(parameter._version > version for parameter, version in zip(trained, versions, strict=True))


@pytest.mark.parametrize(
    ("optimizer_class", "arguments", "fused"),
    [
        (AdamW, {}, True),
        (Adam, {}, True),
        (AdamW, {"fused": False}, False),
        (AdamW, {"foreach": True}, None),
        (SGD, {}, None),
    ],
)
def test_adam_is_fused_unless_told_otherwise(optimizer_class, arguments, fused):
    optimizer = optimizer_class(NoisyRegression().parameters(), lr=1e-3, **arguments)
    fuse_adam(optimizer)
    assert [group["fused"] for group in optimizer.param_groups] == [fused]


def _unfused_adamw(params, lr):
    return AdamW(params, lr, fused=False)


def test_adam_goes_on_fused_from_a_state_that_was_not(tmp_path):
    batches = make_batches([8] * 6)
    expected = Training(optimizer_class=_unfused_adamw).train(batches)
    first = Training(optimizer_class=_unfused_adamw)
    first.train(batches[:3])
    first.optimizer.param_groups[0]["fused"] = None  # as where nobody has chosen
    first.save(tmp_path / "state.pt")
    second = Training(seed=1)
    second.load(tmp_path / "state.pt")
    torch.testing.assert_close(second.train(batches[3:]), expected[3:], rtol=1e-5, atol=0)
    assert second.optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize(
    ("choose", "choice", "message"),
    [
        (choose_step, "fast", "training.step must be one of auto, eager, compile, graph, got 'fast'"),
        (choose_step, "graph", "training.step=graph needs a GPU to train on, training.device is cpu; use auto"),
        (choose_precision, "fp16", "training.precision must be one of auto, float32, bf16, got 'fp16'"),
    ],
)
def test_choices_that_cannot_be_had_are_refused(choose, choice, message):
    with pytest.raises(ConfigError, match=message):
        choose(choice, CPU)


def test_compilation_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "g++-absent")
    with pytest.raises(
        ConfigError, match=r"training.step=compile needs a C\+\+ compiler, and there is no g\+\+-absent"
    ):
        choose_step("compile", CPU)


def test_choices_on_a_cpu():
    assert choose_step("auto", CPU) == "eager"
    assert choose_step("compile", CPU) == "compile"
    assert choose_precision("auto", CPU) == choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16
