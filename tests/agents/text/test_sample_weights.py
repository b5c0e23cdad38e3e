import torch
from numpy.testing import assert_allclose
from scipy.stats import chisquare

from prefenvs.agents.text.sample_weights import rejection_sample, reward_weights, rso_acceptance


def test_card80_acceptance():
    found = rso_acceptance(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), beta=0.5)
    assert_allclose(found, (0.018316, 0.135335, 1.0), atol=6e-7)
    assert_allclose(found.mean(), 0.384550, atol=6e-7)


def test_card80_samples_kept_under_a_true_bound_follow_the_tilted_reference():
    reference, reward = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.0, 1.0, 2.0]).double()
    tilted = reference * (reward / 0.5).exp()
    for seed in (0, 1, 2):
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(reference, 100_000, replacement=True, generator=rng)
        kept = drawn[rejection_sample(reward[drawn], beta=0.5, rng=rng, greatest=torch.tensor(2.0).double())]
        counts = torch.bincount(kept, minlength=3).double()
        assert chisquare(counts, counts.sum() * tilted / tilted.sum()).pvalue > 1e-4
        assert chisquare(counts, counts.sum() * reference).pvalue < 1e-4


def test_the_best_sample_is_always_kept_under_the_samples_own_maximum():
    rng = torch.Generator().manual_seed(0)
    rewards = torch.randn(200, 8, generator=rng)
    kept = rejection_sample(rewards, beta=0.1, rng=rng)
    assert kept.gather(-1, rewards.argmax(-1, keepdim=True)).all()


def test_limits_of_beta():
    rewards = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    assert_allclose(rso_acceptance(rewards, beta=1e9), torch.ones(1, 3), atol=1e-8)
    assert_allclose(rso_acceptance(rewards, beta=1e-3), [[0.0, 0.0, 1.0]], atol=1e-12)
    assert_allclose(reward_weights(rewards, beta=1e9), torch.full((1, 3), 1 / 3), atol=1e-8)
    assert_allclose(reward_weights(rewards, beta=1e-3), [[0.0, 0.0, 1.0]], atol=1e-12)


def test_weighted_likelihood_is_greatest_at_the_tilted_policy():
    """Every outcome once: the weights with a uniform reference are the tilted policy itself."""
    rewards = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
    assert_allclose(reward_weights(rewards, beta=0.5), (rewards / 0.5).softmax(-1))
    assert_allclose(reward_weights(rewards + 7.0, beta=0.5), reward_weights(rewards, beta=0.5))
