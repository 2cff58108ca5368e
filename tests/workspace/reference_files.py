"""Checkpoints of the original as the payloads that reading them gives, until `read_checkpoint` does."""

import pickle

import torch
from omegaconf import OmegaConf


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module.startswith("dill"):  # its names for types that pickle knows by others
            return lambda name: {"ClassType": type}.get(name) or getattr(__builtins__, name, object)
        return super().find_class(module, name)


class _Pickle:
    Unpickler = _Unpickler
    load = staticmethod(lambda *args, **kwargs: _Unpickler(*args, **kwargs).load())


def read_original(path):
    content = torch.load(path, map_location="cpu", pickle_module=_Pickle, weights_only=False)
    return {
        "format": "original",
        "cfg": OmegaConf.to_container(content["cfg"], resolve=False),
        "state_dicts": content["state_dicts"],
        "values": {key: pickle.loads(value) for key, value in content["pickles"].items()},
    }
