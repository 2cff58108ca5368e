"""The robot's side: alone with numpy, msgpack and websockets, and with servers that fail it."""

import contextlib
import socket
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from tiny_policies import ROOT, observation, served, served_engine
from websockets.sync.server import serve

from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.client import PolicyClient, PolicyServerError
from diffusion_policy.serving.engine import InferenceEngine
from diffusion_policy.serving.policy_spec import PolicySpec
from diffusion_policy.serving.wire import pack


@pytest.fixture(scope="module")
def engine(stacked_checkpoint):
    """One that sees two steps, and its spec."""
    policy, cfg = load_policy(stacked_checkpoint, "cpu")
    spec = PolicySpec.of(policy, cfg)
    engine = InferenceEngine(policy, spec, 1)
    engine.warm_up()
    return engine, spec


@pytest.fixture
def client(engine):
    """Of a server in this process."""
    with served_engine(*engine) as port, PolicyClient("127.0.0.1", port) as client:
        yield client


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_it_runs_where_there_is_nothing_but_numpy_msgpack_and_websockets(engine):
    code = """
        import importlib.abc, sys

        class Absent(importlib.abc.MetaPathFinder):
            allowed = {"numpy", "msgpack", "websockets", "diffusion_policy", *sys.stdlib_module_names}

            def find_spec(self, name, path, target=None):
                if name.partition(".")[0] not in self.allowed:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
        import numpy as np
        from diffusion_policy.serving.client import PolicyClient

        with PolicyClient("127.0.0.1", int(sys.argv[1])) as client:
            image = np.zeros((48, 64, 3), np.uint8)
            obs = {"observation/image": image, "observation/image_1": image, "observation/state": np.zeros(2)}
            print(client.infer(obs)["actions"].shape, *sorted(name for name in ("torch", "cv2") if name in sys.modules))
    """
    with served_engine(*engine) as port:
        command = [sys.executable, "-c", textwrap.dedent(code), str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(4, 2)\n"


def test_it_names_the_extra_that_is_missing():
    for module in ("msgpack", "websockets"):
        code = f"import sys; sys.modules[{module!r}] = None; import diffusion_policy.serving.client"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert f"needs {module}, which is not installed: pip install 'diffusion_policy[serve]'" in done.stderr


def test_history_and_reset(client):
    a, b = observation(0), observation(1)
    stacked = {key: np.stack([a[key], b[key]]) for key in a}
    repeated = {key: np.stack([b[key], b[key]]) for key in b}
    both, twice = (client.infer(obs, seed=1)["actions"] for obs in (stacked, repeated))
    client.reset(seed=1)
    client.infer(a)
    assert np.array_equal(client.infer(b, seed=1)["actions"], both)
    client.reset()
    assert np.array_equal(client.infer(b, seed=1)["actions"], twice)
    assert not np.array_equal(both, twice)


def test_a_seed_starts_a_stream_that_goes_on(client):
    obs = observation(0)
    client.reset(seed=7)
    first, second = (client.infer(obs)["actions"] for _ in range(2))
    assert not np.array_equal(first, second)
    client.reset(seed=7)
    assert np.array_equal(client.infer(obs)["actions"], first)
    assert np.array_equal(client.infer(obs)["actions"], second)
    assert np.array_equal(client.infer(obs, seed=7)["actions"], first)
    assert not np.array_equal(client.infer(obs)["actions"], first)


def test_answers(client):
    metadata = client.get_server_metadata()
    assert (metadata["n_obs_steps"], metadata["n_action_steps"], metadata["mode"]) == (2, 4, "multi_frame")
    answer = client.infer(observation(0))
    assert answer["actions"].dtype == np.float32
    answer["actions"] += 1  # is the caller's
    assert answer["server_timing"]["infer_ms"] > 0
    assert "prev_total_ms" in client.infer(observation(0))["server_timing"]


def test_refusals_leave_the_connection(client):
    with pytest.raises(PolicyServerError, match=r"lacks camera_3, robot_eef_pose; it has camera_1$"):
        client.infer({"camera_1": observation(0)["camera_1"]})
    with pytest.raises(PolicyServerError, match="seed is no integer from 0"):
        client.infer(observation(0), seed=-1)
    with pytest.raises(PolicyServerError, match="reset is a str, expected true or false"):
        client.infer({"reset": "yes"})
    websocket = client._websocket
    assert client.infer(observation(0))["actions"].shape == (4, 2)
    assert client._websocket is websocket


def test_a_refused_request_changes_nothing(client):
    a, b = observation(0), observation(1)
    client.reset(seed=1)
    client.infer(a)
    expected = client.infer(b, seed=1)["actions"]
    client.reset(seed=1)
    client.infer(a)
    for bad in ({**b, "robot_eef_pose": np.full(2, np.nan)}, {**b, "reset": True, "other": 1}, {**b, "seed": "1"}):
        with pytest.raises(PolicyServerError):
            client.infer(bad)
    assert np.array_equal(client.infer(b, seed=1)["actions"], expected)


def test_it_waits_for_a_server_that_is_not_there_yet(engine):
    port = free_port()
    made = []
    thread = threading.Thread(target=lambda: made.append(PolicyClient(f"ws://127.0.0.1:{port}", connect_timeout=20)))
    thread.start()
    time.sleep(0.3)
    with served_engine(*engine, port=port):
        thread.join(20)
        assert made[0].infer(observation(0))["actions"].shape == (4, 2)
        made[0].close()


def test_it_does_not_wait_for_ever():
    with pytest.raises(ConnectionError, match=r"no policy server at ws://127\.0\.0\.1:"):
        PolicyClient("127.0.0.1", free_port(), connect_timeout=0.3)
    with pytest.raises(ValueError, match="no address of a server"):
        PolicyClient("http://127.0.0.1", 80, connect_timeout=0.3)


def test_it_connects_again_to_a_server_that_was_restarted(engine, caplog):
    with served_engine(*engine) as port:
        client = PolicyClient("127.0.0.1", port, timeout=20)
        expected = client.infer(observation(0), seed=3)["actions"]
    with served_engine(*engine, port=port):
        assert np.array_equal(client.infer(observation(0), seed=3)["actions"], expected)
        assert "history and random stream begin anew" in caplog.text
        client.close()
    with pytest.raises(ConnectionError, match="no policy server"):
        PolicyClient("127.0.0.1", port, connect_timeout=0.2)


@contextlib.contextmanager
def other_server(handler):
    """A server of the same protocol that behaves otherwise; gives its port."""
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


def test_late_answers_are_not_taken_for_those_of_the_next_request():
    def answer_late(websocket):
        websocket.send(pack({"n_obs_steps": 1}))
        for number, _ in enumerate(websocket):
            time.sleep(0.6 if number == 0 and not seen else 0)
            seen.append(number)
            with contextlib.suppress(Exception):
                websocket.send(pack({"actions": np.full((1, 1), len(seen))}))

    seen = []
    with other_server(answer_late) as port:
        client = PolicyClient("127.0.0.1", port, timeout=0.3)
        with pytest.raises(TimeoutError, match=r"no answer within 0\.3 s"):
            client.infer({})
        client.timeout = 5
        assert client.infer({})["actions"].item() == 2
        client.close()


def test_a_server_that_hangs_up_again_and_again_is_an_error():
    def hang_up(websocket):
        websocket.send(pack({}))
        websocket.recv()

    with other_server(hang_up) as port:
        client = PolicyClient("127.0.0.1", port, timeout=5)
        with pytest.raises(ConnectionError, match="closed the connection"):
            client.infer({})


def test_what_a_server_sends_is_read_as_carefully():
    def lie(websocket):
        websocket.send(pack({}))
        websocket.recv()
        websocket.send(b"\x91" * 5000)

    with other_server(lie) as port:
        client = PolicyClient("127.0.0.1", port, timeout=5)
        with pytest.raises(ValueError, match="cannot be read"):
            client.infer({})
        client.close()


def test_eight_clients_at_once_get_what_each_gets_alone(image_checkpoint):
    """Exactly, if the server answers them one by one; else see test_server.py."""
    with served(image_checkpoint, max_batch=1) as (port, _, _):

        def ask(i):
            with PolicyClient("127.0.0.1", port) as client:
                answers[i] = [client.infer(observation(i), seed=i)["actions"] for _ in range(3)]

        answers = {}
        for i in range(8):
            ask(i)
        alone, answers = answers, {}
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(np.array_equal(alone[i], answers[i]) for i in range(8))
