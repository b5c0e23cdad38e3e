"""Exact training of tables: descent, pairs read from one table or several, and PPO in expectation."""

import numpy as np
import pytest
import torch

from prefenvs.agents.text.exact import (
    ExactPPO,
    TablePairs,
    descend,
    descent,
    memoryless_tree,
    train_grid,
    tree_logprobs,
)
from prefenvs.agents.text.losses import PAIR_LOSSES
from prefenvs.metrics.kl_frontier import exact_kl_policy


def test_descent_shows_the_table_before_the_first_step_and_after_each():
    weight = torch.tensor([1.0], requires_grad=True)
    shown = list(descent(torch.optim.SGD([weight], lr=0.5), lambda: 2 * weight, lambda table: table.sum(), 2))
    assert [float(table) for table in shown] == [2.0, 0.0, -2.0]
    assert not any(table.requires_grad for table in shown)


def test_policies_with_labels_of_their_own_are_read_one_after_another():
    rng = torch.Generator().manual_seed(0)
    reference, logps = torch.randn(3, 4, generator=rng), torch.randn(2, 3, 4, generator=rng)
    prompt, chosen, rejected = torch.tensor([0, 2]), torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 2], [3, 0]])
    tokens = torch.tensor([1, 2, 3, 4])
    together = TablePairs(reference, prompt, chosen, rejected, tokens).read(logps)
    for policy in range(2):
        alone = TablePairs(reference, prompt, chosen[policy], rejected[policy], tokens).read(logps[policy])
        for name, value in vars(alone).items():
            if value is not None:
                assert torch.equal(getattr(together, name)[2 * policy : 2 * policy + 2], value), name
    assert float(alone.policy_chosen[1]) == float(logps[1, 2, 3])
    assert alone.rejected_tokens.tolist() == [4, 1]


@pytest.mark.parametrize("steps", [1, 4])
def test_exact_ppo_ends_at_the_exact_optimum(steps):
    rng = torch.Generator().manual_seed(0)
    reference, reward = torch.randn(2, 5, generator=rng, dtype=torch.float64).log_softmax(-1), torch.eye(2, 5)
    logits = reference.clone().requires_grad_()
    loss = ExactPPO(reward, reference, beta=0.5, steps=steps)
    *_, last = descent(torch.optim.Adam([logits], lr=0.01), lambda: logits.log_softmax(-1), loss, 2000)
    best = exact_kl_policy(reference.exp().numpy(), reward.numpy(), 2.0)
    torch.testing.assert_close(last.exp(), torch.tensor(best), atol=2e-3, rtol=0.0)


def test_policies_of_a_grid_are_those_trained_alone():
    logps = np.log(np.random.default_rng(0).dirichlet(np.ones(3), 2))  # an end and two letters, two prompts
    start, tokens, prompt = memoryless_tree(logps, 2), np.array([1, 2, 2, 2, 2, 2, 2]), np.array([0, 1, 1])
    chosen, rejected = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[3, 4, 5], [0, 1, 2]])  # (kinds of labels, pairs)
    options = {"beta": (0.1, 1.0), "flip": 0.2}
    grid = (PAIR_LOSSES["cdpo"], options, start, 2, (prompt, chosen, rejected), tokens)
    found, changes = train_grid(*grid, steps=5, rate=0.1)
    assert found.shape == (2, 2, 2, 7)
    sides = torch.tensor(chosen[1]), torch.tensor(rejected[1])
    pairs = TablePairs(tree_logprobs(start, 2), torch.tensor(prompt), *sides)
    logits = start.clone().requires_grad_()
    optimizer, loss = torch.optim.Adam([logits], lr=0.1), pairs.mean_loss(PAIR_LOSSES["cdpo"], beta=1.0, flip=0.2)
    alone = descend(optimizer, lambda: tree_logprobs(logits, 2), loss, 5)
    torch.testing.assert_close(found[1, 1], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(changes[1, 1], pairs.read(alone).chosen_ratio.mean(), atol=1e-5, rtol=1e-5)
