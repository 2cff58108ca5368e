import torch
from torch import nn

from diffusion_policy.model.common.weight_watch import WeightWatch


def test_changes_moves_and_replacements_are_seen():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    watch = WeightWatch(module)

    def state():
        return watch.places(), watch.versions()

    before = state()
    assert state() == before
    with torch.no_grad():
        module[0].weight.add_(1)
    assert watch.versions() != before[1]
    before = state()
    module[1][0].running_mean.add_(1)
    assert watch.versions() != before[1]
    kept = module[0].weight.data
    module[0].weight.data = kept.clone()
    assert watch.places() != before[0]
    before = state()
    module[1][0] = nn.BatchNorm1d(2)
    assert watch.places() != before[0]
    before = state()
    module.load_state_dict({key: value.clone() for key, value in module.state_dict().items()}, assign=True)
    assert watch.places() != before[0]


def test_weights_made_for_inference_are_watched_for_moves():
    with torch.inference_mode():
        module = nn.Linear(2, 2)
    watch = WeightWatch(module)
    assert watch.places() == watch.places()
    assert watch.versions() == []
