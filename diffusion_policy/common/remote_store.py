"""Zarr stores behind a URL: S3, HTTP and whatever else fsspec knows."""

from typing import TypeGuard

import zarr
from zarr.abc.store import Store

_INSTALL = "pip install 'diffusion_policy[remote]'"


def is_url(location: object) -> TypeGuard[str]:
    """Whether a store argument is a URL, such as `s3://bucket/demos.zarr`, rather than a path."""
    return isinstance(location, str) and "://" in location


def open_url(url: str, mode: str = "r") -> zarr.Group:
    """Opens the root group of the folder that a URL stands for; only for reading.

    Endpoints, credentials and the like come from the environment, as fsspec and the filesystem's package document.

    Raises:
        FileNotFoundError: there is none.
        ModuleNotFoundError: the package of its filesystem is not installed.
        ValueError: fsspec knows no such protocol, it is a zip file, or it is to be modified.
    """
    if mode != "r":
        raise ValueError(
            f"{url} can only be read (mode {mode!r}): write a folder with ReplayBuffer.save_to_path and upload that"
        )
    if url.endswith(".zip"):
        raise ValueError(
            f"{url} is a zip file, of which single chunks cannot be read from afar: unpack it there into a folder "
            "NAME.zarr, or download it"
        )
    try:
        return zarr.open_group(_store(url), mode="r", use_consolidated=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no dataset at {url}: it has no .zgroup; give the URL of a .zarr folder") from error


def _store(url: str) -> Store:
    from zarr.storage import FsspecStore

    try:
        store: Store = FsspecStore.from_url(url, read_only=True)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{url} needs a package that is not installed ({error}): {_INSTALL} has what S3 needs; a package for "
            "another filesystem goes beside it",
            name=error.name,
        ) from error
    except ValueError as error:
        raise ValueError(f"{url} cannot be opened ({error}): is it spelled like s3://bucket/demos.zarr?") from error
    return store
