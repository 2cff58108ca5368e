"""Cameras recorded on this machine: which frames are lost, how late frames are, and what each step costs.

On a busy machine the figures are those of the other work: the load is printed with them.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.real_world.cameras.frame_source import Frame
from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.real_time import run_in_real_time
from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.rig import SimulatedRig
from diffusion_policy.real_world.sim.scene_renderer import LEFT, VIEWS, SceneRenderer
from diffusion_policy.real_world.video_recorder import VideoRecorder

RESOLUTION = (1280, 720)
TICKS = os.sysconf("SC_CLK_TCK")
scale_observation = get_image_transform(RESOLUTION, (640, 480), bgr_to_rgb=True)
scale_view = get_image_transform(RESOLUTION, (640, 360))


def observation(frame: Frame) -> Frame:
    """As `RealEnv` has it."""
    return {**frame, "color": scale_observation(frame["color"])}


def view(frame: Frame) -> Frame:
    """For a window."""
    return {**frame, "color": scale_view(frame["color"])}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def recording(n_cameras: int, seconds: float, folder: Path) -> None:
    """All cameras of a rig, whose robot runs, with what `RealEnv` asks of them."""
    with (
        SimulatedRig(views=VIEWS[:n_cameras], resolution=RESOLUTION) as rig,
        MultiCamera.of_sources(rig.cameras, put_downsample=False, transform=observation, vis_transform=view) as cameras,
    ):
        pids = {name: camera.pid for name, camera in cameras.cameras.items()} | {"robot and world": rig.robot.pid}
        time.sleep(0.5)
        cameras.start_recording(folder, time.time() + 0.2)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        latencies, started = [], time.monotonic()
        while time.monotonic() - started < seconds:
            time.sleep(0.1)
            frames = cameras.get(k=2)
            latencies += [
                frame["camera_receive_timestamp"] - frame["camera_capture_timestamp"] for frame in frames.values()
            ]
        cpu = {name: (cpu_seconds(pid) - before[name]) / (time.monotonic() - started) for name, pid in pids.items()}
        reports = cameras.stop_recording()
    print(f"{n_cameras} cameras, {RESOLUTION} px, 30 Hz, {seconds:.0f} s, {os.cpu_count()} processors:")
    for report in reports:
        size = report.path.stat().st_size * 8 / seconds / 1e6
        print(
            f"  {report.path.name}: {report.n_frames} frames in the video, {report.n_dropped} dropped, "
            f"{report.n_repeated} places without a frame of their own; {size:.2f} Mbit/s"
        )
    p50, p99 = 1e3 * np.quantile(np.concatenate(latencies), [0.5, 0.99])
    print(f"  from capture to receipt: median {p50:.1f} ms, p99 {p99:.1f} ms")
    print("  processor: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in cpu.items()))


def steps(folder: Path) -> None:
    """Processor time of what is done with a frame."""
    renderer, rng = SceneRenderer(LEFT, RESOLUTION, GOAL), np.random.default_rng(0)
    scenes = [renderer.render([0.3 + 0.01 * i, 0.1, 0.02, 0, 0, 0], [0.5, 0.01 * i, 0.02 * i]) for i in range(30)]
    noise = rng.normal(0, 2, (*scenes[0].shape,)).astype(np.int8)
    noisy = [np.clip(scene + np.roll(noise, i), 0, 255).astype(np.uint8) for i, scene in enumerate(scenes)]
    print("milliseconds of processor a frame, median:")
    _cost("render", lambda i: renderer.render([0.3 + 0.01 * i, 0.1, 0.02, 0, 0, 0], [0.5, 0, 0.02 * i]))
    _cost("scale to an observation of 640 x 480", lambda i: scale_observation(scenes[i]))
    for name, images in (("drawn", scenes), ("noisy", noisy)):
        for preset in ("ultrafast", "veryfast"):
            recorder = VideoRecorder.create_h264(30, input_pix_fmt="bgr24", crf=21, preset=preset, thread_count=1)
            recorder.start(folder / "a.mp4")
            label = f"encode {name} images, {preset}{' (default)' if preset == 'veryfast' else ''}"
            _cost(label, lambda i, images=images, recorder=recorder: recorder.write_frame(images[i]))
            recorder.stop()


def _cost(name: str, step: Callable[[int], object]) -> None:
    times = []
    for i in range(30):
        start = time.thread_time()
        step(i)
        times.append(time.thread_time() - start)
    print(f"  {name}: {1e3 * np.median(times):.2f}")


def _real_time_is_allowed() -> bool:
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(run_in_real_time, 1).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, nargs="+", default=[2], help="how many, of a run each")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    in_real_time = "allowed" if _real_time_is_allowed() else "not allowed"
    print(f"load before: {os.getloadavg()[0]:.1f}; real time is {in_real_time}")
    with tempfile.TemporaryDirectory() as folder:
        for n_cameras in arguments.cameras:
            recording(n_cameras, arguments.seconds, Path(folder))
        steps(Path(folder))
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
