"""Exact training of tables: descent, pairs read from one table or several, and PPO in expectation."""

import pytest
import torch

from prefenvs.agents.text.exact import ExactPPO, TablePairs, descent
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
