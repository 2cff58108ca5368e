"""BET, IBC and BC-RNN-GMM against the fixtures, on two modes, and what they share: rows apart, bad input refused."""

import pytest
import torch
from filled import filled_baseline, fixture_normalizer, observations, training_batch
from fixtures import load_fixture
from torch import nn
from two_modes import ACTION_DIM, OBS_DIM, SIDE, demonstrations, error, fitted_normalizer

from diffusion_policy.model.bet.action_ae.discretizers.k_means import KMeansDiscretizer
from diffusion_policy.model.bet.latent_generators.mingpt import MinGPT
from diffusion_policy.policy.bet_lowdim_policy import BETLowdimPolicy
from diffusion_policy.policy.ibc_dfo_hybrid_image_policy import IbcDfoHybridImagePolicy
from diffusion_policy.policy.ibc_dfo_lowdim_policy import IbcDfoLowdimPolicy
from diffusion_policy.policy.robomimic_image_policy import RobomimicImagePolicy
from diffusion_policy.policy.robomimic_lowdim_policy import RobomimicLowdimPolicy

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RELATIVE = 1e-5
"""Of energies and likelihoods in the hundreds and millions, to which the fixtures' weights add up."""


def _bet(n_bins=4, **kwargs):
    settings = {"n_layer": 1, "n_head": 2, "n_embd": 16, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    prior = MinGPT(
        OBS_DIM,
        block_size=3,
        vocab_size=n_bins,
        action_dim=ACTION_DIM,
        predict_offsets=True,
        offset_loss_scale=100.0,
        focal_loss_gamma=2.0,
        **settings,
    )
    discretizer = KMeansDiscretizer(ACTION_DIM, n_bins, predict_offsets=True)
    return BETLowdimPolicy(
        discretizer, nn.Identity(), prior, **{"horizon": 3, "n_action_steps": 1, "n_obs_steps": 3, **kwargs}
    )


def _ibc(**kwargs):
    settings = {"dropout": 0.0, "train_n_neg": 16, "pred_n_iter": 5, "pred_n_samples": 64, **kwargs}
    return IbcDfoLowdimPolicy(2, OBS_DIM, ACTION_DIM, n_action_steps=1, n_obs_steps=2, **settings)


def _rnn_gmm():
    return RobomimicLowdimPolicy(ACTION_DIM, OBS_DIM)


MAKERS = {
    "BET": (_bet, 3),
    "IBC": (_ibc, 2),
    "IBC kevin": (lambda: _ibc(kevin_inference=True), 2),
    "BC-RNN-GMM": (_rnn_gmm, 1),
}


def _policy(name):
    """A policy of a method with the normalizer of the task, and how many steps it observes."""
    make, n_obs_steps = MAKERS[name]
    torch.manual_seed(0)
    policy = make()
    policy.set_normalizer(fitted_normalizer())
    if name == "BET":
        policy.fit_action_ae(
            policy.normalizer["action"].normalize(demonstrations(500, 1, seed=1)["action"].flatten(0, 1))
        )
    return policy.to(DEVICE).eval(), n_obs_steps


def _on_device(batch):
    return {key: value.to(DEVICE) for key, value in batch.items()}


# Against the fixtures


def _fixture_bet(compat):
    fixture = load_fixture(compat, "k_bet")
    meta = fixture.meta
    torch.manual_seed(0)
    parts = (KMeansDiscretizer(**meta["kmeans_kwargs"]), nn.Identity(), MinGPT(**meta["mingpt_kwargs"]))
    return fixture, BETLowdimPolicy(*parts, **meta["policy_kwargs"])


def test_bet_starts_with_the_weights_and_finds_the_bins_of_the_fixture(compat):
    fixture, policy = _fixture_bet(compat)
    policy.set_normalizer(fixture_normalizer(fixture))
    torch.manual_seed(5)
    policy.fit_action_ae(policy.normalizer["action"].normalize(fixture.tensor("in/all_actions")))
    weights = fixture.tensors("w/")
    assert list(policy.state_dict()) == list(weights)
    for key, value in policy.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=1e-6, msg=key)


def test_bet_equals_fixture(compat):
    fixture, policy = _fixture_bet(compat)
    policy.load_state_dict(fixture.tensors("w/"))
    policy.eval()
    torch.manual_seed(1234)
    result = policy.predict_action({"obs": fixture.tensor("in/obs")})
    for key, value in result.items():
        torch.testing.assert_close(value, fixture.tensor(f"out/predict/{key}"), rtol=0, atol=1e-5)
    losses = policy.compute_losses({"obs": fixture.tensor("in/obs_T"), "action": fixture.tensor("in/action")})
    for key, value in losses.items():
        torch.testing.assert_close(value, fixture.tensor(f"out/{key}"), rtol=RELATIVE, atol=0)
    bins, offsets = policy.action_ae.encode_into_latent(
        policy.normalizer["action"].normalize(fixture.tensor("in/action"))
    )
    assert torch.equal(bins, fixture.tensor("out/encode_into_latent/bins"))
    torch.testing.assert_close(offsets, fixture.tensor("out/encode_into_latent/offsets"), rtol=0, atol=1e-6)


def test_ibc_equals_fixture(compat):
    fixture = load_fixture(compat, "k_ibc_andy_inference")
    policy = filled_baseline(fixture)
    energy = policy(fixture.tensor("in/nobs"), fixture.tensor("in/candidates"))
    torch.testing.assert_close(energy, fixture.tensor("out/forward_energy"), rtol=RELATIVE, atol=0)
    for key, value in policy.get_naction_stats().items():
        torch.testing.assert_close(value, fixture.tensor(f"out/naction_stats/{key}"), rtol=0, atol=1e-6)
    torch.manual_seed(1234)
    action = policy.predict_action({"obs": fixture.tensor("in/obs")})["action"]
    torch.testing.assert_close(action, fixture.tensor("out/predict/action"), rtol=0, atol=1e-5)
    batch = {"obs": fixture.tensor("in/obs_T"), "action": fixture.tensor("in/action")}
    for mode, seed in (("eval", 99), ("train", 98)):
        policy.train(mode == "train")
        torch.manual_seed(seed)
        loss = policy.compute_loss(batch)
        # A difference of energies in the hundreds.
        torch.testing.assert_close(loss, fixture.tensor(f"out/loss_{mode}_mode"), rtol=RELATIVE, atol=1e-3)


def test_ibc_on_images_equals_fixture(compat):
    fixture = load_fixture(compat, "k_ibc_hybrid")
    fixture.meta |= {"B": 1, "T": 2}
    policy = filled_baseline(fixture)
    torch.manual_seed(1234)
    action = policy.predict_action(observations(fixture, 5, 2))["action"]
    torch.testing.assert_close(action, fixture.tensor("out/predict/action"), rtol=0, atol=1e-5)
    torch.manual_seed(99)
    loss = policy.compute_loss(training_batch(fixture))
    torch.testing.assert_close(loss, fixture.tensor("out/loss_eval_mode"), rtol=0, atol=1e-4)


def test_bc_rnn_gmm_equals_fixture(compat):
    fixture = load_fixture(compat, "k_robomimic_lowdim")
    policy = filled_baseline(fixture)
    obs, action = fixture.tensor("in/obs_T"), fixture.tensor("in/action")
    policy.reset()
    torch.manual_seed(1234)
    for i in range(12):
        step = policy.predict_action({"obs": obs[:, i % 4 :][:, :1]})["action"]
        torch.testing.assert_close(step, fixture.tensor(f"out/predict_step{i}/action"), rtol=0, atol=1e-5)
    loss = policy.compute_loss({"obs": obs.repeat(1, 3, 1)[:, :10], "action": action.repeat(1, 3, 1)[:, :10]})
    torch.testing.assert_close(loss, fixture.tensor("out/train_on_batch_validate/action_loss"), rtol=RELATIVE, atol=0)


def test_bc_rnn_gmm_on_images_equals_fixture(compat):
    fixture = load_fixture(compat, "k_robomimic_image")
    policy = filled_baseline(fixture)
    images, agent = fixture.tensor("in/obs/image") / 255, fixture.tensor("in/obs/agent_pos")
    torch.manual_seed(1234)
    for t in range(2):
        action = policy.predict_action({"image": images[:, t : t + 1], "agent_pos": agent[:, t : t + 1]})["action"]
        torch.testing.assert_close(action, fixture.tensor(f"out/predict_step{t}/action"), rtol=0, atol=1e-5)


# Learning


@pytest.mark.parametrize(("name", "n_steps", "lr"), [("BET", 200, 2e-3), ("IBC", 100, 5e-4), ("BC-RNN-GMM", 300, 1e-3)])
def test_two_modes_are_learnt(name, n_steps, lr):
    policy, n_obs_steps = _policy(name)
    policy.train()
    optimizer = torch.optim.Adam((p for p in policy.parameters() if p.requires_grad), lr=lr)
    for step in range(n_steps):
        loss = policy.compute_loss(_on_device(demonstrations(16, n_obs_steps, seed=2 + step)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.eval()
    policy.reset()
    obs = demonstrations(40, n_obs_steps, seed=1)["obs"].to(DEVICE)
    torch.manual_seed(3)
    action = policy.predict_action({"obs": obs})["action"][:, 0]
    assert error(obs[:, -1], action) < SIDE / 4
    assert 4 <= (action[:, 0] > 0).sum() <= 36


# What they share


@pytest.mark.parametrize("name", MAKERS)
def test_actions_of_a_row_do_not_depend_on_the_batch(name):
    policy, n_obs_steps = _policy(name)
    obs = demonstrations(3, n_obs_steps, seed=1)["obs"].to(DEVICE)

    def predict(rows):
        policy.reset()
        generators = [torch.Generator().manual_seed(row) for row in rows]
        steps = [policy.predict_action({"obs": obs[rows]}, generators)["action"] for _ in range(2)]
        return torch.cat(steps, dim=1)

    torch.testing.assert_close(predict([2, 0]), predict([0, 1, 2])[[2, 0]], rtol=1e-4, atol=1e-3)


def test_crops_of_a_row_do_not_depend_on_the_batch():
    policy = RobomimicImagePolicy(
        {"obs": {"image": {"shape": [3, 40, 40], "type": "rgb"}}, "action": {"shape": [2]}}, crop_shape=[32, 32]
    )
    normalizer = fitted_normalizer()
    normalizer["image"] = normalizer["action"].create_identity()
    policy.set_normalizer(normalizer)
    policy.eval()
    images = torch.rand(3, 1, 3, 40, 40)

    def predict(rows):
        policy.reset()
        generators = [torch.Generator().manual_seed(row) for row in rows]
        return policy.predict_action({"image": images[rows]}, generators)["action"]

    torch.testing.assert_close(predict([2, 0]), predict([0, 1, 2])[[2, 0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
def test_half_precision_comes_close_in_prediction(name):
    """The same draws; candidates are rated, and modes chosen, a little differently."""
    policy, n_obs_steps = _policy(name)
    obs = {"obs": demonstrations(10, n_obs_steps, seed=1)["obs"].to(DEVICE)}
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        policy.reset()
        policy.inference_dtype = dtype
        torch.manual_seed(0)
        results.append(policy.predict_action(obs)["action"])
    full, half = results
    assert half.dtype == torch.float32
    assert ((full - half).abs().amax(dim=(1, 2)) < 1).float().mean() > 0.6


def test_recurrent_policy_remembers_until_it_is_reset():
    policy, _ = _policy("BC-RNN-GMM")
    obs = demonstrations(2, 12, seed=1)["obs"].to(DEVICE)

    def predict(steps):
        torch.manual_seed(0)
        return [policy.predict_action({"obs": obs[:, t : t + 1]})["action"] for t in steps][-1]

    policy.reset()
    fresh = predict([1])
    assert not torch.equal(predict([1]), fresh)
    policy.reset()
    assert torch.equal(predict([1]), fresh)
    policy.reset()
    predict(range(10))
    assert torch.equal(predict([1]), fresh)  # 10 steps are what it was trained on
    with pytest.raises(ValueError, match="observations of 1 episodes after those of 2: call reset"):
        policy.predict_action({"obs": obs[:1, :1]})
    with pytest.raises(ValueError, match="one step at a time, got obs: 12; set n_obs_steps=1"):
        policy.predict_action({"obs": obs})


def test_kevin_inference_stays_within_the_data():
    policy, _ = _policy("IBC kevin")
    obs = demonstrations(16, 2, seed=1)["obs"].to(DEVICE)
    action = policy.predict_action({"obs": obs})["action"]
    assert action.abs().max() <= 10 + 1e-4


def test_dead_bins_move_to_data():
    """All points but three are the same: bins that start on it lose all points but one of them."""
    points = torch.cat((torch.zeros(500, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])))
    torch.manual_seed(0)
    discretizer = KMeansDiscretizer(2, 4)
    discretizer.fit_discretizer(points)
    centers = discretizer.suggested_actions
    assert (torch.cdist(centers, points).amin(dim=1) < 1).all()
    assert centers.isfinite().all()
    bins = discretizer.encode_into_latent(points)
    assert torch.equal(discretizer.decode_actions(bins), centers[bins[:, 0]])


def test_steps_that_do_not_count_leave_the_loss_alone():
    policy, _ = _policy("BET")
    batch = _on_device(demonstrations(4, 3, seed=1))
    latents = policy.action_ae.encode_into_latent(policy.normalizer["action"].normalize(batch["action"]))
    mask = torch.tensor([[True, True, False]] * 4, device=DEVICE)
    _, loss = policy.state_prior.get_latent_and_loss(batch["obs"], latents, mask)
    bins, offsets = latents
    _, expected = policy.state_prior.get_latent_and_loss(batch["obs"][:, :2], (bins[:, :2], offsets[:, :2]))
    torch.testing.assert_close(loss, expected)


def test_an_encoder_of_observations_is_trained():
    policy, _ = _policy("BET")
    policy.obs_encoding_net = nn.Linear(OBS_DIM, OBS_DIM)
    optimizer = policy.get_optimizer(weight_decay=0.1, learning_rate=1e-3, betas=(0.9, 0.95))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in policy.obs_encoding_net.parameters()} <= trained


SHAPE_META = {"obs": {"image": {"shape": [3, 40, 40], "type": "rgb"}}, "action": {"shape": [2]}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _bet(horizon=2), "horizon=2 is shorter than n_obs_steps"),
        (lambda: _ibc(pred_n_iter=0), "pred_n_iter must be at least 1, got 0"),
        (lambda: RobomimicLowdimPolicy(2, 3, algo_name="bc"), "algo_name must be bc_rnn"),
        (
            lambda: RobomimicLowdimPolicy(2, 3, obs_type="lowdim"),
            "obs_type must be one of low_dim, image, got 'lowdim'",
        ),
        (lambda: RobomimicLowdimPolicy(2, 3, dataset_type="mg"), "dataset_type must be one of ph, mh, paired, got mg"),
        (lambda: RobomimicImagePolicy(SHAPE_META, crop_shape=[41, 30]), "camera 'image': a crop of 41 x 30"),
        (
            lambda: IbcDfoHybridImagePolicy(SHAPE_META, 2, 1, 2, crop_shape=[30, 41]),
            "camera 'image': a crop of 30 x 41",
        ),
        (lambda: MinGPT(3, predict_offsets=True), "predict_offsets needs action_dim"),
        (lambda: MinGPT(3, n_embd=10, n_head=4), "n_embd=10 is not a multiple of n_head=4"),
        (lambda: KMeansDiscretizer(2, 9).fit_discretizer(torch.zeros(3, 2)), "3 actions are too few for num_bins=9"),
        (lambda: KMeansDiscretizer(2, 9).fit_discretizer(torch.zeros(30, 3)), r"got actions \(30, 3\), expected"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [({"obs": None}, "lacks the key 'obs'"), ({"past_action": torch.zeros(2, 1, 2)}, "no past_action")],
)
def test_bad_observations_are_refused(name, change, message):
    policy, n_obs_steps = _policy(name)
    obs = {"obs": demonstrations(2, n_obs_steps, seed=1)["obs"].to(DEVICE)} | change
    with pytest.raises((ValueError, KeyError), match=message):
        policy.predict_action({key: value for key, value in obs.items() if value is not None})


def test_bins_that_are_not_known_are_missed():
    with pytest.raises(RuntimeError, match="call fit_discretizer"):
        KMeansDiscretizer(2).suggested_actions  # noqa: B018
