"""Checkpoints of policies that take milliseconds, and servers of them."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_policy.common.checkpoint_file import write_checkpoint
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.engine import InferenceEngine
from diffusion_policy.serving.limits import Limits
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.server import PolicyServer

ROOT = Path(__file__).resolve().parents[1]
CAMERAS = ("camera_1", "camera_3")
SHAPE_META = {
    "obs": {
        "camera_1": {"shape": [3, 24, 32], "type": "rgb"},
        "camera_3": {"shape": [3, 24, 32], "type": "rgb"},
        "robot_eef_pose": {"shape": [2], "type": "low_dim"},
    },
    "action": {"shape": [2]},
}


def _layer(name, **kwargs):
    return {"_target_": f"torch.nn.{name}", **kwargs}


def image_config(n_obs_steps=1):
    """Of a policy of two cameras and a position, which answers with 4 actions."""
    layers = [
        _layer("Conv2d", in_channels=3, out_channels=8, kernel_size=5, stride=3),
        _layer("ReLU"),
        _layer("AdaptiveAvgPool2d", output_size=4),
        _layer("Flatten"),
    ]
    return {
        "_target_": "diffusion_policy.policy.diffusion_unet_image_policy.DiffusionUnetImagePolicy",
        "shape_meta": SHAPE_META,
        "noise_scheduler": {
            "_target_": "diffusers.DDIMScheduler",
            "num_train_timesteps": 20,
            "prediction_type": "sample",
        },
        "obs_encoder": {
            "_target_": "diffusion_policy.model.vision.multi_image_obs_encoder.MultiImageObsEncoder",
            "shape_meta": SHAPE_META,
            "rgb_model": _layer("Sequential", _args_=layers),
        },
        "horizon": 8,
        "n_action_steps": 4,
        "n_obs_steps": n_obs_steps,
        "num_inference_steps": 2,
        "down_dims": [8, 16],
        "diffusion_step_embed_dim": 8,
        "kernel_size": 3,
        "n_groups": 4,
    }


def write_policy(path, policy_cfg):
    """A checkpoint with random weights, whose actions are in [-1, 1] as a rule."""
    torch.manual_seed(0)
    policy = instantiate(OmegaConf.create(policy_cfg))
    normalizer = LinearNormalizer()
    vectors = {key: torch.rand(9, 2) * 2 - 1 for key in ("robot_eef_pose", "action")}
    normalizer.fit({**vectors, **{key: torch.rand(9, 3, 1, 1) for key in CAMERAS}})
    policy.set_normalizer(normalizer)
    write_checkpoint(path, {"cfg": {"policy": policy_cfg}, "state_dicts": {"model": policy.state_dict()}, "values": {}})
    return path


def observation(seed, height=48, width=64):
    """One step, as a robot's cameras and arm give it."""
    rng = np.random.default_rng(seed)
    images = {key: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for key in CAMERAS}
    return {**images, "robot_eef_pose": rng.uniform(-1, 1, 2).astype(np.float32)}


@contextlib.contextmanager
def served(checkpoint, max_batch=4, limits=None, **options):
    """Serves a checkpoint from a thread of this process; gives the port, the policy and the engine."""
    policy, cfg = load_policy(checkpoint, "cpu")
    spec = PolicySpec.of(policy, cfg)
    engine = InferenceEngine(policy, spec, max_batch)
    engine.warm_up()
    with served_engine(engine, spec, limits, **options) as port:
        yield port, policy, engine


@contextlib.contextmanager
def served_engine(engine, spec, limits=None, tls=None, port=0, **options):
    """Serves an engine from a thread of this process; gives the port."""
    sock = socket.create_server(("127.0.0.1", port))
    listening, loop = threading.Event(), asyncio.new_event_loop()
    server = PolicyServer(engine, spec, {"model": "tiny"}, limits or Limits(max_rate=1e6), **options)
    failures = []

    def run():
        try:
            loop.run_until_complete(server.run(sock, tls, listening.set))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert listening.wait(10)
    try:
        yield sock.getsockname()[1]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(server.stop)
        thread.join(20)
        assert not thread.is_alive()
        assert not failures
        loop.close()


class ServerProcess:
    """The command as users type it."""

    def __init__(self, checkpoint, *options):
        command = [sys.executable, "serve_diffusion_policy_single_frame.py", "-i", checkpoint, "-p", "0", "-d", "cpu"]
        self.process = subprocess.Popen(
            [str(part) for part in (*command, *options)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        self.log = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._listening.wait(120), "".join(self.log)
        assert self.process.poll() is None, "".join(self.log)

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serving at (wss?)://127\.0\.0\.1:(\d+)", line):
                self.scheme, self.port = found[1], int(found[2])
                self._listening.set()
        self._listening.set()

    @property
    def uri(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def memory_mb(self):
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def wait(self, timeout=60):
        """The exit code, and everything that was logged."""
        code = self.process.wait(timeout)
        self._reader.join()
        self.process.stderr.close()
        return code, "".join(self.log)

    def stop(self):
        """Ends it, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()
