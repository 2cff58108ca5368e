"""Reading of the original's checkpoints with whatever code they hold: what `--trust` does."""

import logging
import os
import pickle
import types
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from diffusion_policy.common.checkpoint_archive import DamagedError

log = logging.getLogger(__name__)


def load_trusted(path: str | os.PathLike[str], map_location: Any) -> Any:
    """The content of a file, with everything run and imported that it asks for; its config as plain containers.

    Raises:
        DamagedError: it fails, with its own error.
    """
    log.warning("--trust: running the code that %s brings with it", path)
    try:
        content = torch.load(path, map_location=map_location, weights_only=False, pickle_module=_PICKLE)
    except Exception as error:  # the file's code raises whatever it likes
        raise DamagedError(f"its own code failed: {type(error).__name__}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("cfg"), DictConfig | ListConfig):
        content["cfg"] = OmegaConf.to_container(content["cfg"], resolve=False)
    return content


class _Unpickler(pickle.Unpickler):
    """Python's own, which knows what dill calls builtin types without dill."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("dill._dill", "_load_type"):
            return _type_named
        return super().find_class(module, name)


def _type_named(name: str) -> Any:
    builtins: Any = {each.__name__: each for each in (dict, list, tuple, set, str, int, float, bool, bytes)}
    return builtins.get(name) or getattr(types, name)


_PICKLE = types.SimpleNamespace(Unpickler=_Unpickler, load=pickle.load, __name__="pickle")
