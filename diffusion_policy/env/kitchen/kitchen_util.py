"""Recordings of MuJoCo HAPTIX, files `.mjl`, in which the human demonstrations of the kitchen come.

A file is little-endian: seven int32 (nq, nv, nu, nmocap, nsensordata, nuserdata, length of the model's name), the name,
then records of float32, each with time (1), qpos (nq), qvel (nv), ctrl (nu), mocap_pos (3 nmocap),
mocap_quat (4 nmocap), sensordata (nsensordata) and userdata (nuserdata).
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_policy.common.atomic_file import atomic_path

_SIZES = ("nq", "nv", "nu", "nmocap", "nsensordata", "nuserdata")
_HEADER_BYTES = 4 * (len(_SIZES) + 1)


def _widths(sizes: Mapping[str, int]) -> dict[str, int]:
    return {
        "time": 1,
        "qpos": sizes["nq"],
        "qvel": sizes["nv"],
        "ctrl": sizes["nu"],
        "mocap_pos": 3 * sizes["nmocap"],
        "mocap_quat": 4 * sizes["nmocap"],
        "sensordata": sizes["nsensordata"],
        "userdata": sizes["nuserdata"],
    }


def parse_mjl_logs(read_filename: str | os.PathLike[str], skipamount: int) -> dict[str, Any]:
    """Reads every `skipamount`-th record, from the first.

    Returns:
        The sizes of the header, `name` (bytes), `logName`, `time` `(N,)` in s, and the parts of the records `(N, ...)`
        float32: `qpos`, `qvel`, `ctrl`, `mocap_pos`, `mocap_quat`, `sensordata`, `userdata`.

    Raises:
        ValueError: it is no recording, or it is cut off.
    """
    if skipamount < 1:
        raise ValueError(f"skipamount is {skipamount}, expected at least 1")
    with open(read_filename, "rb") as file:
        content = file.read()
    if len(content) < _HEADER_BYTES:
        raise ValueError(f"{read_filename} has {len(content)} bytes, less than the header of an .mjl file")
    *counts, name_length = np.frombuffer(content, "<i4", len(_SIZES) + 1).tolist()
    sizes = dict(zip(_SIZES, counts, strict=True))
    start = _HEADER_BYTES + name_length
    if min(*counts, name_length) < 0 or start > len(content):
        raise ValueError(f"{read_filename} is no .mjl file: its header has {sizes} and a name of {name_length} bytes")
    widths = _widths(sizes)
    record_bytes = 4 * sum(widths.values())
    n_records, rest = divmod(len(content) - start, record_bytes)
    if rest or not n_records:
        raise ValueError(
            f"{read_filename} is damaged: it holds {len(content) - start} bytes of records of {record_bytes} bytes, "
            "which is no whole number of them; get it anew or remove it"
        )
    records = np.frombuffer(content, "<f4", offset=start).reshape(n_records, -1)[::skipamount].astype(np.float32)
    parts = dict(zip(widths, np.split(records, np.cumsum(list(widths.values()))[:-1], axis=1), strict=True))
    name = content[_HEADER_BYTES:start]
    return {**sizes, "name": name, "logName": read_filename, **parts, "time": parts["time"][:, 0]}


def write_mjl_log(
    path: str | os.PathLike[str],
    time: np.ndarray,
    qpos: np.ndarray,
    qvel: np.ndarray,
    ctrl: np.ndarray,
    name: bytes = b"kitchen",
) -> None:
    """Writes a recording without mocap bodies, sensors and user data.

    Args:
        path: the file; it appears whole or not at all.
        time: of each record, `(N,)` in s.
        qpos, qvel, ctrl: `(N, nq)`, `(N, nv)`, `(N, nu)`.
        name: of the model.
    """
    header = np.array([qpos.shape[1], qvel.shape[1], ctrl.shape[1], 0, 0, 0, len(name)], "<i4")
    records = np.concatenate([time[:, None], qpos, qvel, ctrl], axis=1).astype("<f4")
    with atomic_path(path) as temporary:
        temporary.write_bytes(header.tobytes() + name + records.tobytes())
