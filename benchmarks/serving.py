"""What a policy costs when it is served: latency and actions a second, beside `predict_action` in this process.

Each client is a process of its own on this machine and sends one step of two 640 x 480 images and a position, raw or
as JPEG. `beside` is what a request takes beyond the prediction: packing, the loopback, reading, resizing, waiting.
With --closed-loop, Push-T is played with the shipped policy, served and not, and the scores are compared.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from side_by_side import DEVICE

from diffusion_policy.common.checkpoint_file import write_checkpoint
from diffusion_policy.common.config import instantiate, register_resolvers
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.client import PolicyClient
from diffusion_policy.serving.images import unit_scaled
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.remote_policy import RemotePolicy

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "assets" / "pusht_demo.ckpt"
SIZES = {
    "full": ["policy.num_inference_steps=16"],
    "small": [
        "policy.num_inference_steps=4",
        "policy.down_dims=[32,64]",
        "policy.obs_encoder.resize_shape=[30,40]",
        "policy.obs_encoder.crop_shape=[27,36]",
    ],
}
CAMERAS = ("camera_1", "camera_3")
HEIGHT, WIDTH = 480, 640


def write_policy(path: Path, size: str) -> None:
    """A checkpoint of the real robot's image policy, with random weights."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "diffusion_policy" / "config"), version_base=None):
        cfg = compose("train_diffusion_unet_real_image_workspace", SIZES[size])
    torch.manual_seed(0)
    policy = instantiate(cfg.policy, "policy")
    normalizer = LinearNormalizer()
    vectors = {key: torch.rand(9, 2) for key in ("robot_eef_pose", "action")}
    normalizer.fit({**vectors, **{key: torch.rand(9, 3, 1, 1) for key in CAMERAS}})
    policy.set_normalizer(normalizer)
    config = {"policy": OmegaConf.to_container(cfg.policy, resolve=True)}
    write_checkpoint(path, {"cfg": config, "state_dicts": {"model": policy.state_dict()}, "values": {}})


def observation(seed: int) -> dict[str, np.ndarray]:
    """Two images like a camera's: smooth, with some noise."""
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in CAMERAS]
    images = [cv2.resize(each, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for each in coarse]
    return {**dict(zip(CAMERAS, images, strict=True)), "robot_eef_pose": rng.random(2, dtype=np.float32)}


def as_jpeg(obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with the images' JPEGs, as arrays of bytes."""
    return {key: cv2.imencode(".jpg", obs[key][..., ::-1])[1].ravel() if key in CAMERAS else obs[key] for key in obs}


@contextlib.contextmanager
def serving(checkpoint: Path, *options: str) -> Iterator[str]:
    """Runs a server; gives its URI."""
    script = str(ROOT / "serve_diffusion_policy_single_frame.py")
    options = ("-p", "0", "-d", DEVICE.type, "--max-rate", "1e6", *options)
    command = [sys.executable, script, "-i", str(checkpoint), *options]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if "at a time" in line:
                print(f"  {line.split(': ', 1)[1].strip()}")
            if found := re.search(r"serving at (ws://\S+)", line):
                yield found[1]
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        server.terminate()
        server.communicate(timeout=60)


def run_clients(uri: str, obs: dict[str, np.ndarray], n_clients: int, requests: int) -> tuple[list[Any], float]:
    """What `n_clients` at once measured, and the seconds that they took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "obs.npz")
        np.savez(path, **obs)  # type: ignore[arg-type]
        command = [sys.executable, str(ROOT / "benchmarks" / "serving_client.py"), uri, "--images", str(path)]
        command += ["--requests", str(requests)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        clients: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(n_clients)]  # type: ignore[call-overload]
        for client in clients:
            if client.stdout.readline() != "ready\n":
                raise RuntimeError("a client failed, see above")
        start = time.perf_counter()
        for client in clients:
            client.stdin.write("\n")
            client.stdin.flush()
        outputs = [client.communicate()[0] for client in clients]
        return [json.loads(output) for output in outputs], time.perf_counter() - start


def show(name: str, times: list[float], beside: list[float] | None, rate: float) -> float:
    """Prints a row; the median."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    rest = "" if beside is None else "".join(f"{value:>9.2f}" for value in np.percentile(beside, [50, 95]))
    print(f"  {name:<34}{p50:>9.2f}{p95:>9.2f}{p99:>9.2f}{rate:>11.0f}{rest}", flush=True)
    return float(p50)


def timed(call: Callable[[], Any], n: int) -> list[float]:
    """Milliseconds of each of `n` calls, after some that warm up."""
    times = []
    for _ in range(n + 5):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times[5:]


def benchmark(checkpoint: Path, clients: list[int], requests: int) -> None:
    """Prints the table."""
    policy, cfg = load_policy(checkpoint, str(DEVICE))
    reader = ObservationReader(PolicySpec.of(policy, cfg), 10**7)
    obs = observation(0)
    generator = [torch.Generator().manual_seed(0)]

    def seen() -> dict[str, torch.Tensor]:
        frames = reader.read(obs)
        twice = {key: unit_scaled(np.concatenate([value, value])) for key, value in frames.items()}
        return {key: torch.from_numpy(value)[None].to(DEVICE) for key, value in twice.items()}

    def predict(obs_dict: dict[str, torch.Tensor]) -> torch.Tensor:
        return policy.predict_action(obs_dict, generator)["action"].cpu()

    n_actions = policy.n_action_steps
    print(f"\nTwo {WIDTH} x {HEIGHT} images, {type(policy).__name__} on {DEVICE}; ms")
    with serving(checkpoint) as uri:
        print(f"  {'':34}{'p50':>9}{'p95':>9}{'p99':>9}{'actions/s':>11}{'beside':>9}{'p95':>9}")
        ready = seen()
        times = timed(lambda: predict(ready), requests)
        alone = show("in this process", times, None, n_actions * 1e3 / float(np.mean(times)))
        times = timed(lambda: predict(seen()), requests)
        show("in this process, images resized", times, None, n_actions * 1e3 / float(np.mean(times)))
        for kind, given in {"raw": obs, "JPEG": as_jpeg(obs)}.items():
            for n in clients:
                results, seconds = run_clients(uri, given, n, max(requests // n, 10))
                times = [each for result in results for each in result["ms"]]
                beside = [each for result in results for each in result["beside_ms"]]
                p50 = show(f"{n} client{'s' * (n > 1)}, {kind}", times, beside, n_actions * len(times) / seconds)
                if n == 1:
                    print(f"  {'':34}{p50 - alone:>+9.2f} over the process's own")


def closed_loop(episodes: int, max_steps: int) -> None:
    """Prints the scores of the shipped Push-T policy, in this process and served."""
    policy, _ = load_policy(DEMO, str(DEVICE))
    scores = {}
    with tempfile.TemporaryDirectory() as folder, serving(DEMO) as uri:
        remote = RemotePolicy(lambda: PolicyClient(uri))
        options = {"n_train": 0, "n_test": episodes, "n_test_vis": 0, "test_start_seed": 100_000, "legacy_test": True}
        for name, each in {"in this process": policy, "served": remote}.items():
            runner = PushTKeypointsRunner(folder, n_obs_steps=2, max_steps=max_steps, n_envs=4, **options)
            start = time.perf_counter()
            scores[name] = runner.run(each)["test/mean_score"]
            print(f"  {name:<34}mean max reward {scores[name]:.4f}, {time.perf_counter() - start:.1f} s", flush=True)
            runner.close()
        remote.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    is_gpu = DEVICE.type == "cuda"
    parser.add_argument("--size", choices=SIZES, default="full" if is_gpu else "small")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=400 if is_gpu else 100, help="of all clients together")
    parser.add_argument("--closed-loop", type=int, metavar="N", default=0, help="episodes of Push-T, too")
    parser.add_argument("--max-steps", type=int, default=300, help="of an episode")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "policy.ckpt")
        write_policy(checkpoint, args.size)
        benchmark(checkpoint, [int(n) for n in args.clients.split(",")], args.requests)
    if args.closed_loop:
        print(f"\nPush-T, {args.closed_loop} episodes of at most {args.max_steps} steps")
        closed_loop(args.closed_loop, args.max_steps)


if __name__ == "__main__":
    main()
