"""A checkpoint as a running policy server."""

import asyncio
import contextlib
import importlib.metadata
import ipaddress
import logging
import signal
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

import torch

from diffusion_policy.common.own_thread import in_own_thread
from diffusion_policy.policy.inference_options import set_inference_options
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.debug_recorder import DebugRecorder, Ranges
from diffusion_policy.serving.engine import InferenceEngine
from diffusion_policy.serving.limits import Limits
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.server import PolicyServer

logger = logging.getLogger(__name__)

LOOPBACK, ANYWHERE = "127.0.0.1", "0.0.0.0"


@dataclass(frozen=True)
class ServeOptions:
    """What `serve_diffusion_policy_single_frame.py` is told; see its `--help`."""

    input: str
    port: int = 8000
    host: str | None = None
    device: str = "auto"
    num_inference_steps: int | None = None
    n_action_steps: int | None = None
    precision: str = "float32"
    api_key: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    debug: str | None = None
    max_batch: int = 16
    max_wait_ms: float = 2.0
    trust: bool = False
    limits: Limits = field(default_factory=Limits)


def serve_checkpoint(options: ServeOptions) -> None:
    """Serves the policy of a checkpoint until SIGTERM or Ctrl-C, whereupon it answers what it was asked and returns.

    Raises:
        FileNotFoundError, CheckpointError: the checkpoint cannot be loaded.
        ValueError: an option that the policy or this machine does not have.
        OSError: the port is taken, or a certificate cannot be read.
        DeviceError: the GPU failed.
    """
    tls = _tls(options)
    with bind(options) as sock:
        policy, spec, engine = in_own_thread(lambda: _prepare(options))
        metadata = {"model": type(policy).__name__, "device": str(policy.device), "version": _version()}
        recorder = None if options.debug is None else DebugRecorder(options.debug, training_ranges(policy))
        max_wait = options.max_wait_ms / 1e3
        server = PolicyServer(engine, spec, metadata, options.limits, options.api_key, max_wait, recorder)
        try:
            asyncio.run(_run(server, sock, tls))
        finally:
            if recorder is not None:
                recorder.close()


def _prepare(options: ServeOptions) -> tuple[Any, PolicySpec, InferenceEngine]:
    """The policy, its shapes, and what asks it, warmed up."""
    policy, cfg = load_policy(options.input, options.device, options.trust)
    set_inference_options(policy, options.num_inference_steps, options.n_action_steps)
    if options.precision == "bf16":
        policy.inference_dtype = torch.bfloat16
    spec = PolicySpec.of(policy, cfg)
    engine = InferenceEngine(policy, spec, options.max_batch)
    engine.warm_up()
    return policy, spec, engine


def bind(options: ServeOptions) -> socket.socket:
    """A socket with the address to listen at, at which nobody is let in yet.

    Without a host that is every address if there is a key, else the loopback's.

    Raises:
        OSError: the address is taken or none of this machine.
    """
    host = options.host or (ANYWHERE if options.api_key else LOOPBACK)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, options.port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        with contextlib.ExitStack() as on_error:
            on_error.callback(sock.close)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            on_error.pop_all()
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at {host} port {options.port}: {error.strerror}") from error
    if not ipaddress.ip_address(address[0]).is_loopback:
        if not options.api_key:
            logger.warning("whoever reaches %s can use the policy: set --api-key, or listen on %s", host, LOOPBACK)
        elif not options.tls_cert:
            logger.warning("the API key and all images cross the network readable: set --tls-cert and --tls-key")
    return sock


def training_ranges(policy: Any) -> Ranges:
    """Least and largest values in training of what the policy normalises, by key."""
    ranges = {}
    for key, params in policy.normalizer.params_dict.items():
        stats = params["input_stats"]
        ranges[key] = (stats["min"].flatten().tolist(), stats["max"].flatten().tolist())
    return ranges


async def _run(server: PolicyServer, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, server.stop)
    host, port, *_ = sock.getsockname()
    address = f"[{host}]" if ":" in host else host
    scheme = "ws" if tls is None else "wss"
    await server.run(sock, tls, lambda: logger.info("serving at %s://%s:%d", scheme, address, port))


def _tls(options: ServeOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        if options.tls_key is not None:
            raise ValueError("--tls-key without --tls-cert: give the certificate too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        raise ValueError(f"no certificate and key in {options.tls_cert}, {options.tls_key}: {error}") from error
    return context


def _version() -> str:
    try:
        return importlib.metadata.version("diffusion_policy")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
