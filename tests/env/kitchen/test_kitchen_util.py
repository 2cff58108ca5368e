"""Recordings of MuJoCo HAPTIX."""

import struct

import numpy as np
import pytest

from diffusion_policy.env.kitchen.kitchen_util import parse_mjl_logs, write_mjl_log

SIZES = {"nq": 3, "nv": 2, "nu": 2, "nmocap": 1, "nsensordata": 4, "nuserdata": 1}
WIDTHS = {"qpos": 3, "qvel": 2, "ctrl": 2, "mocap_pos": 3, "mocap_quat": 4, "sensordata": 4, "userdata": 1}
NAME = b"a model"


@pytest.fixture
def recording(tmp_path):
    """Bytes as documented, written number by number; entry j of record i is 100 i + j."""
    content = struct.pack("<7i", *SIZES.values(), len(NAME)) + NAME
    for i in range(7):
        content += struct.pack("<20f", *(100 * i + j for j in range(20)))
    path = tmp_path / "log.mjl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("skip", "rows"), [(1, range(7)), (3, (0, 3, 6)), (40, (0,))])
def test_parts_are_where_the_format_has_them(recording, skip, rows):
    log = parse_mjl_logs(str(recording), skipamount=skip)
    assert {key: log[key] for key in SIZES} == SIZES
    assert (log["name"], log["logName"]) == (NAME, str(recording))
    np.testing.assert_array_equal(log["time"], [100 * i for i in rows])
    column = 1
    for key, width in WIDTHS.items():
        np.testing.assert_array_equal(log[key], [[100 * i + column + j for j in range(width)] for i in rows])
        assert log[key].dtype == np.float32
        column += width


def test_written_recordings_read_back(tmp_path):
    rng = np.random.default_rng(0)
    parts = {"qpos": rng.normal(size=(5, 30)), "qvel": rng.normal(size=(5, 29)), "ctrl": rng.normal(size=(5, 9))}
    write_mjl_log(tmp_path / "log.mjl", np.arange(5) * 0.002, **parts)
    log = parse_mjl_logs(tmp_path / "log.mjl", skipamount=1)
    for key, value in parts.items():
        np.testing.assert_array_equal(log[key], value.astype(np.float32))
    np.testing.assert_allclose(log["time"], np.arange(5) * 0.002, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:20], "20 bytes, less than the header"),
        (lambda content: content[:-3], "no whole number"),
        (lambda content: content[: 28 + len(NAME)], "no whole number"),
        (lambda content: b"\xff" * 100, "no .mjl file"),
        (lambda content: b"\x7f" * 100, "no .mjl file"),
    ],
)
def test_damaged_recordings_are_refused(recording, change, message):
    recording.write_bytes(change(recording.read_bytes()))
    with pytest.raises(ValueError, match=message):
        parse_mjl_logs(recording, skipamount=1)


def test_skipping_nothing_is_refused(recording):
    with pytest.raises(ValueError, match="skipamount is 0"):
        parse_mjl_logs(recording, skipamount=0)
