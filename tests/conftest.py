"""What every test shares: where the compatibility facts and the real demonstrations are, if they are here."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from xvfb import running_xvfb

# Tests run beside each other: threads that outnumber the cores would wait for each other. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when kernels are defined
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("WANDB_MODE", "offline")
# A shell starts what runs in its background with Ctrl-C ignored, and so would be every command that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the compatibility fixtures, absent beside this checkout")
    return path


@pytest.fixture(scope="session")
def compat() -> Path:
    """Folder of the drop-in contract's facts and numeric fixtures."""
    return _shared("compat")


@pytest.fixture(scope="session")
def real_pusht() -> Path:
    """The real Push-T demonstrations: 206 episodes, 25 650 steps, zarr v2 in a zip."""
    return _shared("data", "pusht_cchi_v7_replay.zarr.zip")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this checkout, from where users run the commands."""
    return REPOSITORY


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """Name of an X display, which is also this process's $DISPLAY from now on: libraries keep the first they find."""
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("needs Xvfb and xdotool (apt install xvfb xdotool)")
    with running_xvfb() as name:
        os.environ["DISPLAY"] = name
        yield name


@pytest.fixture(scope="session")
def kitchen_demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three demonstrations of the kitchen's light switch, made by the scripted expert, with recordings."""
    from click.testing import CliRunner

    from diffusion_policy.scripts.generate_kitchen_demos import main

    folder = tmp_path_factory.mktemp("kitchen") / "demos"
    arguments = ["-o", str(folder), "-n", "3", "--task", "light switch", "--mjl"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def lift_demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three demonstrations of Lift by the scripted expert, with images, in robomimic's layout (HDF5)."""
    from robomimic_data import make_once

    from diffusion_policy.scripts.generate_robomimic_demos import generate

    path = tmp_path_factory.getbasetemp().parent / "robomimic_lift.hdf5"
    return make_once(path, lambda output: generate("lift", 3, str(output), seed=1, images=True))


@pytest.fixture(scope="session")
def lift_abs_demos(lift_demos: Path) -> Path:
    """The same with absolute actions."""
    from robomimic_data import make_once

    from diffusion_policy.scripts.robomimic_dataset_conversion import convert

    path = lift_demos.with_name("robomimic_lift_abs.hdf5")
    return make_once(path, lambda output: convert(str(lift_demos), str(output), num_workers=1))
