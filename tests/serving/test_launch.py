"""Options of the server's command: key, TLS, addresses, denoising steps; and how it ends when its GPU fails."""

import importlib.util
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner
from failing_policy import ERROR, GPU, NAN
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from tiny_policies import ROOT, ServerProcess, image_config, observation, served, write_policy
from websockets.exceptions import InvalidStatus

from diffusion_policy.policy.inference_options import set_inference_options
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.serving.client import PolicyClient, PolicyServerError
from diffusion_policy.serving.engine import EpisodeState, InferenceEngine, Query
from diffusion_policy.serving.inspect import write_page
from diffusion_policy.serving.launch import ServeOptions, bind
from diffusion_policy.serving.observation_reader import ObservationReader
from diffusion_policy.serving.policy_spec import PolicySpec

KEY = "a key of 26 letters & more"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Certificate and private key of 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=robot", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *kind, *subject, "-out", paths[0], "-keyout", paths[1]]
    subprocess.run(command, check=True, capture_output=True)
    return paths


def at(position):
    return {**observation(0), "robot_eef_pose": np.array([position, 0], np.float32)}


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate[0])


def health(port, context, path="/healthz", **headers):
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_key_tls_debug_and_a_failing_gpu(tmp_path, certificate, monkeypatch):
    """One server, as starting one takes seconds."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "serving"), prepend=":")
    monkeypatch.setenv("POLICY_API_KEY", KEY)
    checkpoint = tmp_path / "failing.ckpt"
    write_policy(checkpoint, {**image_config(), "_target_": "failing_policy.FailingPolicy"})
    tls = ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    server = ServerProcess(checkpoint, "--trust", "--host", "127.0.0.1", *tls, "--debug", tmp_path / "debug")
    try:
        _check_who_may_come_in(server, trusting(certificate))
        client = PolicyClient(server.uri, api_key=KEY, ssl_context=trusting(certificate))
        assert client.infer(at(0.5))["actions"].shape == (4, 2)
        with pytest.raises(PolicyServerError, match="the policy's action is not finite"):
            client.infer(at(NAN))
        with pytest.raises(PolicyServerError, match=r"^the policy failed: RuntimeError\. The server's log says more$"):
            client.infer(at(ERROR))
        with pytest.raises(PolicyServerError, match="unknown key"):
            client.infer({**at(0.5), "other": 1})
        assert client.infer(at(0.5))["actions"].shape == (4, 2)
        with pytest.raises(PolicyServerError, match="the GPU failed: CUDA error: an illegal memory access"):
            client.infer(at(GPU))
        code, log = server.wait()
    finally:
        server.process.kill()
    assert code == 1
    assert "Error: the GPU failed: CUDA error" in log
    assert "a secret of the server" in log
    assert KEY not in log
    html = write_page(tmp_path / "debug").read_text()
    assert len(list((tmp_path / "debug").glob("*.npz"))) == 6
    assert html.count("What the policy saw") == 5
    assert html.count("Refused: ") == 4


def _check_who_may_come_in(server, context):
    assert health(server.port, context) == 200
    assert health(server.port, context, "/metrics") == 401
    assert health(server.port, context, "/metrics", Authorization=f"Api-Key {KEY}") == 200
    for key in (None, "", "wrong", KEY + "x", KEY[:-1], "Ä"):
        with pytest.raises(PermissionError, match=r"refuses the API key \(HTTP 401\)"):
            PolicyClient(server.uri, api_key=key, ssl_context=context)
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        PolicyClient(server.uri, api_key=KEY)
    with pytest.raises(ConnectionError):
        PolicyClient(f"ws://127.0.0.1:{server.port}", api_key=KEY, connect_timeout=0.1)


def test_openpi_brings_the_key(image_checkpoint):
    with served(image_checkpoint, api_key=KEY) as (port, _, _):
        client = WebsocketClientPolicy("127.0.0.1", port, api_key=KEY)
        assert client.infer(observation(0))["actions"].shape == (4, 2)
        with pytest.raises(InvalidStatus, match="401"):
            WebsocketClientPolicy("127.0.0.1", port, api_key="wrong")


@pytest.fixture
def command():
    """Runs the server's command in this process, with options for which it does not get to serving."""
    spec = importlib.util.spec_from_file_location("serve", ROOT / "serve_diffusion_policy_single_frame.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *options: CliRunner().invoke(module.main, [str(option) for option in options])


def test_help_says_all(command):
    result = command("--help")
    assert result.exit_code == 0
    options = "--input --port --host --device --num_inference_steps --n_action_steps --api-key --debug --max-batch"
    for option in (*options.split(), "--max-wait-ms", "--tls-cert", "--tls-key", "--trust", "-i,", "-p,", "-h,", "-d,"):
        assert option in result.output


BAD_OPTIONS = {
    "--n_action_steps 9": "horizon=8 is shorter than n_obs_steps + n_action_steps - 1 = 9",
    "--num_inference_steps 21": "num_inference_steps=21, expected 1 to 20",
    "-d cuda:77": "device 'cuda:77' is not available",
    "-h 203.0.113.1": "cannot listen at 203.0.113.1 port 0",
    "-h no.such.host.invalid": "cannot listen at no.such.host.invalid",
    "--tls-key key.pem": "--tls-key without --tls-cert",
    "--tls-cert absent.pem": "no certificate and key in absent.pem",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_are_one_clear_error(command, image_checkpoint, options):
    result = command("-i", image_checkpoint, "-d", "cpu", "-p", 0, *options.split())
    assert result.exit_code == 1
    assert BAD_OPTIONS[options] in result.output
    assert "Traceback" not in result.output


def test_bad_checkpoints_and_taken_ports_are_one_clear_error(command, tmp_path, image_checkpoint):
    result = command("-i", tmp_path / "absent.ckpt", "-p", 0)
    assert result.exit_code == 1
    assert "absent.ckpt" in result.output
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    assert "bad.ckpt" in command("-i", tmp_path / "bad.ckpt", "-p", 0).output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = command("-i", image_checkpoint, "-d", "cpu", "-p", port)
    assert f"cannot listen at 127.0.0.1 port {port}: Address already in use" in result.output


def address(**options):
    with bind(ServeOptions("a.ckpt", port=0, **options)) as sock:
        with pytest.raises(ConnectionRefusedError):  # before the policy is warm
            socket.create_connection(("127.0.0.1", sock.getsockname()[1]), 5)
        return sock.getsockname()[0]


def test_without_a_key_only_this_machine_is_served_unless_asked(caplog):
    assert address() == "127.0.0.1"
    assert address(host="localhost", api_key=KEY) in ("127.0.0.1", "::1")
    assert not caplog.records
    assert address(api_key=KEY, tls_cert="cert.pem") == "0.0.0.0"
    assert not caplog.records
    assert address(api_key=KEY) == "0.0.0.0"
    assert "cross the network readable" in caplog.text
    caplog.clear()
    assert address(host="0.0.0.0") == "0.0.0.0"
    assert "whoever reaches 0.0.0.0 can use the policy: set --api-key" in caplog.text


def test_options_of_inference(image_checkpoint, compat):
    policy, cfg = load_policy(image_checkpoint, "cpu")
    set_inference_options(policy)
    assert (policy.num_inference_steps, policy.n_action_steps) == (2, 4)
    set_inference_options(policy, num_inference_steps=5, n_action_steps=8)
    assert (policy.num_inference_steps, policy.n_action_steps) == (5, 8)
    spec = PolicySpec.of(policy, cfg)
    obs = ObservationReader(spec, 10**6).read(observation(0))
    (actions,) = InferenceEngine(policy, spec, 1).predict([Query(obs, EpisodeState())])
    assert actions.shape == (spec.n_action_steps, 2) == (8, 2)
    other, _ = load_policy(compat / "ckpt" / "bet_lowdim.ckpt", "cpu")
    set_inference_options(other)
    with pytest.raises(ValueError, match="BETLowdimPolicy has neither num_inference_steps nor n_action_steps"):
        set_inference_options(other, n_action_steps=1)
