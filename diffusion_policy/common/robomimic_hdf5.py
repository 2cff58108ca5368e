"""HDF5 files in robomimic's layout: `data/demo_<i>` with `actions` `(N, Da)`, `states`, and `obs/<key>` `(N, ...)`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py


@contextmanager
def open_robomimic(path: str | Path) -> Iterator["h5py.File"]:
    """Opens a dataset for reading.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not in robomimic's layout.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ImportError(
            "robomimic's datasets need h5py, which is not installed: pip install 'diffusion_policy[sim]'"
        ) from error
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(
            f"no dataset at {path}: generate one (python -m diffusion_policy.scripts.generate_robomimic_demos --help) "
            "or fetch robomimic's own, see https://robomimic.github.io/docs/datasets/overview.html"
        )
    try:
        file = h5py.File(Path(path).expanduser(), "r", locking=False)
    except OSError as error:
        raise ValueError(
            f"{path} is not a whole HDF5 file ({error}): it was cut short while it was written or fetched, or is "
            "something else; write or fetch it again"
        ) from error
    with file:
        if not isinstance(file.get("data"), h5py.Group):
            raise ValueError(f"{path} is not in robomimic's layout: it has no group 'data' but {sorted(file)}")
        yield file


def demo_names(file: "h5py.File") -> list[str]:
    """Names of the demonstrations, by their numbers.

    Raises:
        ValueError: there are none, or names are not of the form demo_<number>.
    """
    names = list(file["data"])
    if not names:
        raise ValueError(f"{file.filename} has no demonstrations: 'data' is empty")
    strange = [name for name in names if not name.removeprefix("demo_").isdigit()]
    if strange:
        raise ValueError(f"{file.filename}: expected demonstrations demo_0, demo_1, ..., got {strange[:3]}")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def read_env_args(path: str | Path) -> Any:
    """What the file says of its environment.

    Raises:
        ValueError: it says nothing, or not in JSON.
    """
    with open_robomimic(path) as file:
        if "env_args" not in file["data"].attrs:
            raise ValueError(
                f"{path} has no 'env_args': without them the environment is unknown. Datasets of robomimic have them; "
                "raw demonstrations of robosuite get them from robomimic's convert_robosuite.py"
            )
        try:
            return json.loads(file["data"].attrs["env_args"])
        except ValueError as error:
            raise ValueError(f"{path}: env_args are not JSON: {error}") from error


def read_init_states(path: str | Path, first: int, n: int) -> list[NDArray[np.float64]]:
    """First states `(S,)` of the `n` demonstrations with numbers from `first` on.

    Raises:
        ValueError: there are fewer demonstrations, or they have no states.
    """
    with open_robomimic(path) as file:
        names = demo_names(file)
        wanted = [f"demo_{i}" for i in range(first, first + n)]
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(
                f"{path} has {len(names)} demonstrations, {names[0]} to {names[-1]}, and lacks {missing[0]}: choose a "
                f"smaller env_runner.n_train ({n}) or train_start_idx ({first})"
            )
        return [np.asarray(read_rows(file, f"data/{name}/states", slice(0, 1))[0], np.float64) for name in wanted]


def read_rows(file: "h5py.File", name: str, rows: slice = slice(None)) -> NDArray[Any]:
    """Rows of an array of the file.

    Raises:
        ValueError: it is absent or damaged.
    """
    if name not in file:
        parent = name.rsplit("/", 1)[0]
        there = sorted(file[parent]) if parent in file else []
        raise ValueError(f"{file.filename} has no {name!r}; in {parent!r} there is {there}")
    try:
        return np.asarray(file[name][rows])
    except OSError as error:
        raise ValueError(f"{file.filename}: {name!r} is damaged ({error}): write or fetch the file again") from error


def check_steps(file: "h5py.File", names: Sequence[str], keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Checks that arrays, such as 'actions' and 'obs/object', have the same steps in all demonstrations.

    Returns:
        Shape of a step by key.

    Raises:
        ValueError: an array is absent, empty, or differs from the others in length or from demonstration to
            demonstration in the shape of a step.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        demo, lengths = file["data"][name], {}
        for key in keys:
            if key not in demo:
                there = [*(key for key in demo if key != "obs"), *(f"obs/{key}" for key in demo.get("obs", ()))]
                raise ValueError(
                    f"{file.filename}: {name} has no {key!r}; it has {', '.join(there)}. "
                    + (
                        "Images and observations come from robomimic's dataset_states_to_obs.py"
                        if key.startswith("obs/")
                        else "The file was not written to its end, or is not in robomimic's layout"
                    )
                )
            lengths[key] = demo[key].shape[0]
            shape = shapes.setdefault(key, demo[key].shape[1:])
            if demo[key].shape[1:] != shape:
                raise ValueError(
                    f"{file.filename}: steps of {key!r} have shape {list(shape)} in {names[0]} but "
                    f"{list(demo[key].shape[1:])} in {name}: do not mix data of different robots or actions"
                )
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(
                f"{file.filename}: {name} has arrays of {lengths} steps, expected the same number, at least one: the "
                "file was not written to its end; write or fetch it again"
            )
    return shapes
