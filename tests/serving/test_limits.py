"""What clients may cost, and how the server stops."""

import asyncio
import contextlib
import select
import socket
import threading
import time

import numpy as np
import pytest
import torch
from tiny_policies import observation, served, served_engine
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.serving.client import PolicyClient, PolicyServerError
from diffusion_policy.serving.endpoints import SPARE_CONNECTIONS
from diffusion_policy.serving.engine import InferenceEngine
from diffusion_policy.serving.limits import Limits, RateLimit, RequestError
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.server import PolicyServer
from diffusion_policy.serving.wire import pack, unpack


def test_a_second_of_requests_may_come_at_once_and_no_more():
    rate = RateLimit(20.0)
    start = time.monotonic()
    for _ in range(20):
        rate.take()
    for _ in range(int(20 * (time.monotonic() - start))):
        rate.take()  # what has come in meanwhile
    with pytest.raises(RequestError, match="more than 20 requests a second: ask less often"):
        rate.take()
    time.sleep(0.2)
    rate.take()


def test_requests_beyond_the_rate_are_refused_and_others_served(image_checkpoint):
    with served(image_checkpoint, limits=Limits(max_rate=5)) as (port, _, _):
        greedy = connect(f"ws://127.0.0.1:{port}")
        greedy.recv()
        for _ in range(50):
            greedy.send(pack({"reset": True}))
        replies = [greedy.recv(10) for _ in range(50)]
        refused = [reply for reply in replies if isinstance(reply, str)]
        assert 20 < len(refused) <= 45
        assert set(refused) == {"more than 5 requests a second: ask less often"}
        with PolicyClient("127.0.0.1", port) as client:
            assert client.infer(observation(0))["actions"].shape == (4, 2)


def test_clients_beyond_the_limit_are_told_so_until_one_leaves(image_checkpoint):
    with served(image_checkpoint, limits=Limits(max_connections=2)) as (port, _, _):
        first, _second = (PolicyClient("127.0.0.1", port) for _ in range(2))
        with pytest.raises(InvalidStatus, match="503") as caught:
            connect(f"ws://127.0.0.1:{port}")
        assert b"there are 2 clients already" in caught.value.response.body
        threading.Timer(0.3, first.close).start()
        third = PolicyClient("127.0.0.1", port, connect_timeout=10)
        assert third.infer(observation(0))["actions"].shape == (4, 2)


def test_connections_that_say_nothing_are_bounded_too(image_checkpoint):
    with served(image_checkpoint, limits=Limits(max_connections=1)) as (port, _, _), contextlib.ExitStack() as stack:
        n = SPARE_CONNECTIONS + 20
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(n)]
        deadline = time.monotonic() + 5
        while len(cut := select.select(silent, [], [], 0)[0]) < 19 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(cut) == 19
        silent[0].close()
        with PolicyClient("127.0.0.1", port, connect_timeout=20) as client:
            assert client.infer(observation(0))["actions"].shape == (4, 2)


def test_images_beyond_the_limit_are_refused(image_checkpoint):
    limits = Limits(max_pixels=10_000)
    with served(image_checkpoint, limits=limits) as (port, _, _), PolicyClient("127.0.0.1", port) as client:
        with pytest.raises(PolicyServerError, match="camera_1: an image of 200 x 100, more than 10000 pixels"):
            client.infer({**observation(0), "camera_1": np.zeros((200, 100, 3), np.uint8)})
        assert client.infer(observation(0))["actions"].shape == (4, 2)


class Slow:
    """A policy that takes the time it is given."""

    device = torch.device("cpu")
    memory = None
    reset = BasePolicy.reset

    def __init__(self):
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def predict_action(self, obs_dict, generator):
        self.is_asked.set()
        assert self.may_go.wait(10)
        return {"action": torch.zeros(len(generator), 1, 1)}


class Verbose(Slow):
    """A policy whose answers fill every buffer on their way."""

    def predict_action(self, obs_dict, generator):
        return {"action": torch.zeros(1, 500_000, 1)}


def engine_of(policy):
    spec = PolicySpec.of(policy, {"policy": {}, "obs_dim": 1, "action_dim": 1})
    engine = InferenceEngine(policy, spec, 1)
    engine.seconds = {1: 0.1}
    return engine, spec


def test_who_takes_no_answers_is_cut_off_and_others_served(caplog):
    with served_engine(*engine_of(Verbose()), Limits(send_timeout=0.3)) as port:
        sock = socket.create_connection(("127.0.0.1", port))
        deaf = connect(f"ws://127.0.0.1:{port}", sock=sock, max_queue=1, max_size=None, compression=None)
        deaf.recv()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(20):
                deaf.send(pack({"obs": np.zeros(1)}))
        with PolicyClient("127.0.0.1", port) as client:
            for _ in range(20):
                assert client.infer({"obs": np.zeros(1)})["actions"].shape == (500_000, 1)
                time.sleep(0.05)
    assert "takes no answers and is cut off" in caplog.text


@pytest.fixture
def stopping():
    """A server with a request in progress and an idle client, which has been told to stop."""
    policy = Slow()
    engine, spec = engine_of(policy)
    loop, sock = asyncio.new_event_loop(), socket.create_server(("127.0.0.1", 0))
    server = PolicyServer(engine, spec, {}, Limits(drain_timeout=1))
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(sock)))
    thread.start()
    uri = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    busy, idle = (connect(uri) for _ in range(2))
    for connection in (busy, idle):
        connection.recv(10)
    busy.send(pack({"obs": np.zeros(1)}))
    assert policy.is_asked.wait(10)
    loop.call_soon_threadsafe(server.stop)
    yield policy, busy, idle, uri, thread
    policy.may_go.set()
    thread.join()
    loop.close()


def test_draining_answers_what_was_asked_and_refuses_the_rest(stopping):
    policy, busy, idle, uri, thread = stopping
    idle.send(pack({"obs": np.zeros(1)}))
    assert idle.recv(10) == "the server is stopping: connect again later"
    with pytest.raises(ConnectionError):
        PolicyClient(uri, connect_timeout=0.1)
    assert thread.is_alive()
    policy.may_go.set()
    assert unpack(busy.recv(10))["actions"].shape == (1, 1)
    for connection in (busy, idle):
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(10)
        assert caught.value.rcvd.code == 1001
    thread.join(10)
    assert not thread.is_alive()


def test_draining_does_not_wait_for_ever(stopping):
    _, busy, _, _, thread = stopping
    thread.join(8)  # the second that it grants, and some for goodbyes
    assert not thread.is_alive()
    with pytest.raises(ConnectionClosed):
        busy.recv(10)
