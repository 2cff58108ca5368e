"""Whole zarr stores: opening what the user gave, and writing new ones that appear complete or not at all."""

import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, ZipStore

from diffusion_policy.common.remote_store import is_url, open_url

PathLike: TypeAlias = str | os.PathLike[str]
StoreLike: TypeAlias = Store | PathLike | MutableMapping[str, Any]
Mode: TypeAlias = Literal["r", "r+", "a", "w", "w-"]
IfExists: TypeAlias = Literal["replace", "skip", "raise"]

_EXPECTED = "give the path of a .zarr folder or a .zarr.zip file"
_LOCAL = "file://"
_MARKERS = (".zgroup", "zarr.json")


def is_path(store: object) -> TypeGuard[PathLike]:
    """Whether a store argument names a file or a folder."""
    return isinstance(store, (str, os.PathLike))


def open_group(store: StoreLike, mode: Mode = "r") -> zarr.Group:
    """Opens the root group of a store, a folder, a `.zarr.zip` file or what a URL stands for.

    Args:
        store: zarr 3 store, path, URL, or a plain dict that a zarr MemoryStore keeps its values in.
        mode: 'r' reads and never modifies; 'r+' also writes; 'a' creates what is missing; 'w' starts anew in
            place of an existing zarr; 'w-' creates and must not find anything.

    Raises:
        FileNotFoundError: the path does not exist, or the folder is empty.
        FileExistsError: mode 'w-' and there is something.
        ValueError: the path is not zarr, the zip is damaged, or a zip is to be modified.
    """
    check_choice("mode", mode, Mode)
    if isinstance(store, MutableMapping):
        return _open_root(MemoryStore(store), mode)
    if isinstance(store, Store):
        return _open_root(store, mode)
    if not is_path(store):
        raise TypeError(f"expected a zarr 3 store, a path or a dict, got {type(store).__name__}: {store!r}")
    if is_url(store) and not store.startswith(_LOCAL):
        return open_url(store, mode)
    path = Path(os.fspath(store).removeprefix(_LOCAL)).expanduser()
    if mode in ("w", "w-") or (mode == "a" and not _has_content(path)):
        _make_room(path, mode)
        return _open_root(LocalStore(path), "a")
    _check_readable(path)
    if path.is_dir():
        return _open_root(LocalStore(path, read_only=mode == "r"), mode)
    if mode != "r":
        raise ValueError(
            f"{path} is a zip file, which cannot be changed in place (mode {mode!r}): copy it into a folder "
            "with ReplayBuffer.copy_from_path(path, store='NAME.zarr') and open that"
        )
    return _open_root(ZipStore(path, mode="r"), mode)


def write_path(path: PathLike, write: Callable[[zarr.Group], None], if_exists: IfExists = "replace") -> None:
    """Makes `path` a zarr that `write` fills through its root group; if it fails, `path` stays as it was.

    Paths that end in '.zip' become one uncompressed zip file, others a folder. Where `path` exists and
    `if_exists` is 'skip', nothing happens.

    Raises:
        FileExistsError: `path` exists, and either `if_exists` is 'raise' or it is no zarr folder or zip file.
    """
    check_choice("if_exists", if_exists, IfExists)
    if is_url(path):
        raise ValueError(f"cannot write to {path}: write a folder and upload that")
    final = Path(path).expanduser().absolute()
    if final.exists() and if_exists == "skip":
        return
    _check_replaceable(final, if_exists)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    store = ZipStore(temporary, mode="w") if final.suffix == ".zip" else LocalStore(temporary)
    root = _open_root(store, "w")
    try:
        write(root)
        store.close()
        _rename_over(temporary, final)
    finally:
        store.close()
        _remove(temporary)


def is_same_store(one: Store, other: Store) -> bool:
    """Whether two stores keep their values in the same place."""
    if isinstance(one, LocalStore) and isinstance(other, LocalStore):
        return one.root.resolve() == other.root.resolve()
    return str(one) == str(other)


def check_choice(name: str, value: object, choices: object) -> None:
    """Raises ValueError unless `value` is one of a Literal's `choices`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {get_args(choices)}, got {value!r}")


def _open_root(store: Store, mode: Mode) -> zarr.Group:
    """Opens or creates the root group; consolidated metadata, stale after an append, are never used."""
    if mode in ("w", "w-"):
        return zarr.open_group(store, mode=mode, zarr_format=2)
    try:
        return zarr.open_group(store, mode="r" if mode == "r" else "r+", use_consolidated=False)
    except FileNotFoundError as error:
        if mode == "a":
            return zarr.create_group(store, zarr_format=2)
        raise ValueError(f"no zarr group at the root of {store}: is it a replay buffer?") from error


def _has_content(path: Path) -> bool:
    """Whether there is more than what a process killed while it created a group leaves behind."""
    if not path.is_dir():
        return path.is_file()
    return any(child.name != ".zattrs" and child.suffix != ".partial" for child in path.iterdir())


def _is_zarr_folder(path: Path) -> bool:
    return any((path / marker).is_file() for marker in _MARKERS)


def _make_room(path: Path, mode: Mode) -> None:
    if path.suffix == ".zip":
        raise ValueError(
            f"{path}: a zip file can only be written whole; collect episodes in a folder or in memory, "
            "then call save_to_path"
        )
    if not _has_content(path):
        return
    _check_replaceable(path, "raise" if mode == "w-" else "replace")
    _remove(path)


def _check_replaceable(path: Path, if_exists: IfExists) -> None:
    if not _has_content(path):
        return
    if if_exists == "raise":
        raise FileExistsError(f"{path} exists: choose another path, or if_exists='replace'")
    if not (_is_zarr_folder(path) or (path.is_file() and path.suffix == ".zip")):
        raise FileExistsError(f"{path} is no zarr folder or zip file, so it stays: choose another path")


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"no dataset at {path}: {_EXPECTED}")
    if path.is_file():
        _check_zip(path)
        return
    if not any(path.iterdir()):
        raise FileNotFoundError(f"{path} is an empty folder: {_EXPECTED}")
    if not _is_zarr_folder(path):
        hint = _hint(child.name for child in path.iterdir())
        raise ValueError(f"{path} is not a zarr folder (it has no .zgroup): {hint}")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not a readable zip file ({error}); if it is a .zarr.zip, it was cut short or damaged: "
            "fetch or write it again"
        ) from error
    if not any(marker in names for marker in _MARKERS):
        hint = _hint({name.split("/")[0] for name in names})
        raise ValueError(f"{path} has no zarr at its root (no .zgroup): {hint}")


def _hint(names: Iterable[str]) -> str:
    inside = sorted(name for name in names if ".zarr" in name)[:3]
    return f"did you mean {' or '.join(inside)} inside it?" if inside else _EXPECTED


def _rename_over(temporary: Path, final: Path) -> None:
    if temporary.is_file():
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
        return
    replaced = temporary.with_suffix(".old")
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    _remove(replaced)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
