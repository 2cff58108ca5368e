"""The real server process, with openpi's published client and with clients that mean it harm."""

import contextlib
import random
import signal
import socket
import struct
import threading
import time
import urllib.request

import msgpack
import numpy as np
import pytest
import torch
from openpi_client.msgpack_numpy import packb as openpi_pack
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from tiny_policies import ServerProcess, observation
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.client import PolicyClient
from diffusion_policy.serving.images import unit_scaled
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.server import STOPPING

TOLERANCE = 1e-4  # of float32 in batches of other sizes; actions are of the order of 1
N_FUZZ = 10_000


@pytest.fixture(scope="module")
def server(image_checkpoint):
    """One for all tests here; what is left of them, it survives, and SIGTERM ends it well."""
    server = ServerProcess(image_checkpoint, "--max-rate", "100000", "--max-message-mb", "8", "--max-batch", "8")
    yield server
    endings = asking_until_the_end(server)
    code, log = server.wait()
    assert code == 0, log
    assert "Traceback" not in log
    assert set(endings) == {1001}, endings


def asking_until_the_end(server):
    """Close codes of clients that ask on and on while the server gets SIGTERM; every request of theirs is answered."""

    def ask():
        connection = websocket(server)
        is_asking.wait()
        with contextlib.suppress(ConnectionClosed):
            while True:
                connection.send(request)
                reply = connection.recv(30)
                assert not isinstance(reply, str) or reply == STOPPING
        endings.append(connection.close_code)

    request, endings, is_asking = openpi_pack(observation(0)), [], threading.Barrier(5)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    is_asking.wait()
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    return endings if len(endings) == 4 else []


@pytest.fixture
def openpi(server):
    """The published client."""
    return WebsocketClientPolicy("127.0.0.1", server.port)


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as response:
        return response.status, response.headers["Content-Type"], response.read().decode()


def in_this_process(checkpoint, obs, seed):
    policy, cfg = load_policy(checkpoint, "cpu")
    seen = ObservationReader(PolicySpec.of(policy, cfg), 10**7).read(obs)
    batch = {key: torch.from_numpy(unit_scaled(value))[None] for key, value in seen.items()}
    return policy.predict_action(batch, [torch.Generator().manual_seed(seed)])["action"][0].numpy()


def test_health(server):
    status, _, body = get(server, "/healthz")
    assert (status, body.strip()) == (200, "OK")


def test_openpi_is_told_of_the_policy(openpi):
    metadata = openpi.get_server_metadata()
    expected = {"model": "DiffusionUnetImagePolicy", "n_obs_steps": 1, "horizon": 8, "n_action_steps": 4}
    assert metadata.items() >= {**expected, "device": "cpu", "mode": "single_frame"}.items()
    assert metadata["version"]
    assert metadata["shape_meta"]["obs"]["camera_1"] == {"shape": [3, 24, 32], "type": "rgb"}
    assert metadata["shape_meta"]["action"] == {"shape": [2]}


def test_openpi_gets_the_policys_actions(openpi, image_checkpoint):
    obs = observation(0, 480, 640)
    answer = openpi.infer({**obs, "seed": 5})
    assert answer["actions"].dtype == np.float32
    np.testing.assert_allclose(answer["actions"], in_this_process(image_checkpoint, obs, 5), rtol=0, atol=1e-6)
    assert answer["server_timing"].keys() >= {"infer_ms"}
    short = {"observation/image": obs["camera_1"], "observation/image_1": obs["camera_3"]}
    again = openpi.infer({**short, "observation/state": obs["robot_eef_pose"], "seed": np.int64(5)})
    assert np.array_equal(again["actions"], answer["actions"])
    assert again["server_timing"]["prev_total_ms"] > 0


def test_openpi_gets_an_error_and_lives_on(openpi):
    obs = observation(0)
    with pytest.raises(RuntimeError, match="lacks camera_3") as caught:
        openpi.infer({key: obs[key] for key in ("camera_1", "robot_eef_pose")})
    assert len(str(caught.value).splitlines()) == 2  # openpi's own line, and ours
    assert openpi.infer(obs)["actions"].shape == (4, 2)


def test_openpi_connects_again(server):
    for _ in range(3):
        client = WebsocketClientPolicy(f"ws://127.0.0.1:{server.port}")
        assert client.infer(observation(0))["actions"].shape == (4, 2)
        client._ws.close()


def test_metrics(server, openpi):
    openpi.infer(observation(0))
    with pytest.raises(RuntimeError):
        openpi.infer({})
    status, kind, text = get(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["policy_requests_total"]) >= 2
    assert float(values['policy_errors_total{kind="request"}']) >= 1
    assert float(values["policy_batch_size_count"]) >= 1
    assert float(values['policy_request_seconds_bucket{le="+Inf"}']) == float(values["policy_requests_total"])
    assert float(values["policy_connections"]) >= 1


def test_eight_clients_at_once_get_what_a_lone_one_gets(server):
    observations = [observation(i) for i in range(8)]
    lone = WebsocketClientPolicy("127.0.0.1", server.port)
    alone = [[lone.infer({**obs, "seed": i})["actions"] for _ in range(5)] for i, obs in enumerate(observations)]
    together, sizes, start = [[] for _ in range(8)], [], threading.Barrier(8)

    def ask(i):
        client = WebsocketClientPolicy("127.0.0.1", server.port)
        for _ in range(5):
            start.wait()
            answer = client.infer({**observations[i], "seed": i})
            together[i].append(answer["actions"])
            sizes.append(answer["server_timing"]["batch_size"])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)
    if "2: " in next(line for line in server.log if "at a time" in line):  # where batches pay
        assert max(sizes) > 1


def good_is_served(server, seconds=5.0):
    with PolicyClient(server.uri, timeout=seconds) as client:
        assert client.infer(observation(0))["actions"].shape == (4, 2)


def websocket(server, **kwargs):
    """A connection that has been greeted."""
    connection = connect(server.uri, compression=None, max_size=None, **kwargs)
    connection.recv()
    return connection


def raw_websocket(server):
    """A socket after the handshake, to send frames over that no library would."""
    sock = socket.create_connection(("127.0.0.1", server.port))
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key + b"\r\n")
    assert b"101 Switching Protocols" in sock.recv(4096)
    return sock


def frame(opcode, payload=b"", fin=True, length=None):
    """A masked frame; the mask is zero."""
    length = len(payload) if length is None else length
    return struct.pack("!BBQ4x", fin << 7 | opcode, 0x80 | 127, length) + payload


def test_slow_and_vanished_clients_block_nobody(server):
    left = []
    for _ in range(8):
        left.append(socket.create_connection(("127.0.0.1", server.port)))  # says nothing
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        partial = raw_websocket(server)
        partial.sendall(frame(2, b"\x81", length=1_000_000))  # begins a frame, and no more
        gone = raw_websocket(server)
        gone.sendall(frame(2, openpi_pack(observation(0))))
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()  # with a reset, before it is answered
        deaf = raw_websocket(server)
        deaf.sendall(50 * frame(2, openpi_pack({"reset": True})))  # reads no answers
        left += [half, partial, deaf]
    for _ in range(5):
        good_is_served(server)
    for sock in left:
        sock.close()


def test_large_messages_and_many_fragments_end_the_connection_alone(server):
    connection = websocket(server)
    with contextlib.suppress(ConnectionClosed):
        connection.send(b"\0" * (9 << 20))
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(10)
    assert caught.value.rcvd.code == 1009
    sock, before = raw_websocket(server), server.memory_mb()
    sock.sendall(frame(2, fin=False))
    assert cut_off(sock, 10_000 * frame(0, fin=False))
    assert server.memory_mb() < before + 100
    good_is_served(server)


def cut_off(sock, data):
    """Sends the same again and again; whether that comes to an end."""
    for _ in range(200):
        try:
            sock.sendall(data)
        except OSError:
            return True
    return False


def test_text_and_other_protocols_are_answered(server):
    connection = websocket(server)
    connection.send("hello")
    assert connection.recv(10) == "a request is a binary message of msgpack, this is text"
    connection.send(openpi_pack([1, 2]))
    assert connection.recv(10) == "a request is a map from names to arrays"
    connection.close()
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(b"\x16\x03\x01" + bytes(range(256)) + b"\r\n\r\n")
    assert b"101" not in sock.recv(4096)
    with pytest.raises(Exception, match="403"):  # a page of a browser
        connect(server.uri, origin="http://evil.example")


def hostile_frame(rng, valid):
    """Bytes of one of the kinds that break naive servers."""

    def array(dtype, shape, n_bytes):
        data = rng.randbytes(n_bytes)
        return msgpack.packb({"camera_1": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}})

    def wrong_dtype():
        dtypes = ["|O", "|V4", "<U3", "<M8[s]", "O,O", ">f8", "<c16", "f", "", "|O8", [["a", "|O"]], 3, None]
        return array(rng.choice(dtypes), [rng.randrange(9)], rng.randrange(64))

    def wrong_shape():
        dims = [rng.choice([-1, 0, 1, 2, 2**31, 2**32, 2**62, 2**63 - 1, 1.5]) for _ in range(rng.randrange(40))]
        return array(rng.choice(["|u1", "<f4", "<i8"]), dims, rng.randrange(64))

    def flipped():
        data = bytearray(valid)
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(300 if rng.random() < 0.7 else len(data))] = rng.randrange(256)
        return bytes(data)

    kinds = [
        lambda: rng.randbytes(rng.randrange(400)),
        lambda: valid[: rng.randrange(len(valid))],
        flipped,
        wrong_dtype,
        wrong_shape,
        lambda: rng.choice([b"\x91", b"\x81\xa1a", b"\x81\xc4\x01a", b"\x93\x90\x90"]) * rng.randrange(1, 20_000),
        lambda: rng.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]) + rng.randbytes(4) + rng.randbytes(20),
        lambda: b"\x98" + (b"\xdc\xff\xff" + b"\x80" * 65535) * rng.choice([1, 8]),
        lambda: msgpack.packb(
            {rng.choice(["camera_1", "observation/image", "x" * 5000]): rng.choice([None, 1, "a", {}])}
        ),
        lambda: msgpack.packb({"camera_1": b"\xff\xd8\xff" + rng.randbytes(rng.randrange(200))}),
        lambda: msgpack.packb(
            {"seed": rng.choice([-1, 2**64 - 1, "a", 1.5, None]), "reset": rng.choice([0, True, "x"])}
        ),
        lambda: msgpack.packb(msgpack.ExtType(rng.randrange(128), rng.randbytes(8))),
    ]
    return rng.choice(kinds)()


def test_fuzz_frames_leave_the_server_up(server):
    """Four clients send seeded rubbish, some of it in bursts, while a good one is served."""
    valid = openpi_pack(observation(0))
    good_is_served(server)
    before, answered, is_over = server.memory_mb(), [], threading.Event()

    def attack(seed):
        rng = random.Random(seed)
        connection, n_left = websocket(server), N_FUZZ // 4
        while n_left:
            burst = min(rng.choice([1, 10]), n_left)
            for _ in range(burst):
                connection.send(hostile_frame(rng, valid))
            answered.extend(isinstance(connection.recv(30), str) for _ in range(burst))
            n_left -= burst
        connection.close()

    def be_good():
        with PolicyClient(server.uri, timeout=20) as client:
            while not is_over.is_set():
                good.append(client.infer(observation(1), seed=1)["actions"])
                time.sleep(0.05)

    good = []
    threads = [threading.Thread(target=attack, args=(seed,)) for seed in range(4)]
    bystander = threading.Thread(target=be_good)
    for thread in (*threads, bystander):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    bystander.join()
    assert len(answered) == N_FUZZ
    assert np.mean(answered) > 0.9  # flipped pixels, seeds and resets are no errors
    assert len(good) > 5
    np.testing.assert_allclose(good, [good[0]] * len(good), rtol=0, atol=TOLERANCE)
    assert server.memory_mb() < before + 200
    good_is_served(server)


def test_a_frozen_server_does_not_freeze_the_robot(server):
    client = PolicyClient(server.uri, timeout=1)
    server.process.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - TimeoutError or ConnectionError
            client.infer(observation(0))
        with pytest.raises(OSError):  # noqa: PT011
            client.infer(observation(0, 1500, 1700))  # more than the socket's buffers take
        assert time.monotonic() - start < 6
    finally:
        server.process.send_signal(signal.SIGCONT)
    client.timeout = 10
    assert client.infer(observation(0))["actions"].shape == (4, 2)
    client.close()


def test_refusals_are_logged_but_not_for_ever(server):
    connection = websocket(server)
    mark = len(server.log)
    for _ in range(20):
        connection.send(openpi_pack({"what": 1}))
        connection.recv(10)
    deadline = time.monotonic() + 5
    while "only counted" not in "".join(server.log[mark:]) and time.monotonic() < deadline:
        time.sleep(0.01)
    lines = [line for line in server.log[mark:] if "unknown key 'what'" in line]
    assert 0 < len(lines) <= 5
    connection.close()
