import pytest
import torch
import torchvision

from diffusion_policy.model.vision.model_getter import get_r3m, get_resnet


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache of weights, and a proxy that refuses every connection."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return tmp_path


def _assert_same_weights(model, weights):
    assert [key for key in weights if not key.startswith("fc.")] == list(model.state_dict())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_backbones_without_their_last_layer(name, features):
    assert get_resnet(name).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, features)


def test_weights_from_a_file(tmp_path):
    weights = torchvision.models.resnet18().state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    _assert_same_weights(get_resnet("resnet18", weights=str(tmp_path / "weights.pth")), weights)


def test_weights_by_name_from_the_cache(no_network):
    weights = torchvision.models.resnet18().state_dict()
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    cached = no_network / "cache" / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    cached.parent.mkdir(parents=True)
    torch.save(weights, cached)
    _assert_same_weights(get_resnet("resnet18", weights="IMAGENET1K_V1"), weights)


def test_without_network_and_file_the_error_says_how_to_get_them(no_network):
    with pytest.raises(FileNotFoundError, match=r"IMAGENET1K_V1 of resnet34 .* put it at .*resnet34.*\.pth, or pass"):
        get_resnet("resnet34", weights="IMAGENET1K_V1")
    with pytest.raises(FileNotFoundError, match=r"R3M's weights of resnet18 are not at .*r3m_18"):
        get_resnet("resnet18", weights="r3m")


def test_r3m_weights_as_its_library_keeps_them(no_network):
    weights = torchvision.models.resnet18().state_dict()
    wrapped = {f"module.convnet.{k}": v for k, v in weights.items() if not k.startswith("fc.")}
    path = no_network / ".r3m" / "r3m_18" / "model.pt"
    path.parent.mkdir(parents=True)
    torch.save({"r3m": {**wrapped, "module.lang_rew.pred.0.weight": torch.zeros(2)}, "global_step": 5}, path)
    _assert_same_weights(get_r3m("resnet18"), weights)
    _assert_same_weights(get_resnet("resnet18", weights="r3m"), weights)
    _assert_same_weights(get_resnet("resnet18", weights=str(path)), weights)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", None, "no model 'resnet19': did you mean .*resnet1"),
        ("vit_b_16", None, "vit_b_16 has no last layer `fc`"),
        ("resnet18", "IMAGENET1K_V9", "'IMAGENET1K_V9' of resnet18 is neither a file nor one of .*IMAGENET1K_V1"),
        ("resnet101", "r3m", "R3M has no 'resnet101', only resnet18"),
    ],
)
def test_unknown_names_are_refused(name, weights, message):
    with pytest.raises(ValueError, match=message):
        get_resnet(name, weights=weights)


def test_files_that_do_not_fit_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"the weights of .*small\.pth do not fit"):
        get_resnet("resnet50", weights=str(tmp_path / "small.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pth holds no plain weights"):
        get_resnet("resnet18", weights=str(tmp_path / "text.pth"))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*absent\.pth"):
        get_resnet("resnet18", weights=str(tmp_path / "absent.pth"))
