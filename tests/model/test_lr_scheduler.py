import json

import pytest
import torch

from diffusion_policy.model.common.lr_scheduler import get_scheduler


def _optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_schedules_equal_fixture(compat):
    cases = json.loads((compat / "numerics" / "misc.json").read_text())["lr_scheduler"]
    for case in cases:
        expected = case.pop("lr_after_0..24_steps_base_1.0")
        optimizer = _optimizer()
        schedule = get_scheduler(optimizer=optimizer, **case)
        rates = []
        for _ in expected:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates == pytest.approx(expected, abs=1e-12), case


def test_missing_arguments_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown .*'cosin'.*cosine"):
        get_scheduler("cosin", _optimizer())
    with pytest.raises(ValueError, match="needs num_warmup_steps"):
        get_scheduler("cosine", _optimizer(), num_training_steps=3)
    with pytest.raises(ValueError, match="needs num_training_steps"):
        get_scheduler("cosine", _optimizer(), num_warmup_steps=3)
