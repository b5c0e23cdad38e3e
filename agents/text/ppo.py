"""PPO over tokens, with a critic: the RLHF of InstructGPT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prefenvs.agents.reward_models.text.scalar import trainable_copy
from prefenvs.agents.text.advantages import penalised_token_rewards, token_gae, whitened
from prefenvs.agents.text.online import Experience, OnlineConfig, OnlineLearner
from prefenvs.agents.text.options import above
from prefenvs.agents.text.policy_losses import ppo_token_loss, token_mean, value_loss


@dataclass(frozen=True, kw_only=True)
class TokenPPOConfig(OnlineConfig):
    """PPO over tokens; clip, lambda and gamma as in Fu et al. 2025, arXiv:2502.18770."""

    group: int = 1
    """Completions of a prompt; the critic needs no group."""
    epochs: int = 4
    """Passes over a rollout."""
    clip: float = 0.2
    """How far ratios may go."""
    trace: float = 0.95
    """lambda of the generalised advantages."""
    gamma: float = 1.0
    """Discount a token."""
    whiten: bool = True
    """Whether advantages are standardised over the tokens of a rollout."""
    value_clip: float | None = 0.2
    """How far values may go in a rollout's updates; None for any."""
    critic_learning_rate: float | str = 3e-4
    """Adam's for the critic; the paper's is 17 times the policy's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, clip=0, value_clip=0)
        for name in ("trace", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}, expected a number in [0, 1].")


class Critic(nn.Module):
    """A language model of its own with a linear head: what is still to come, before each token. It begins at 0."""

    def __init__(self, model: Any) -> None:
        """Start from a copy of `model`, a LanguageModel; of one with LoRA the small matrices learn alone."""
        super().__init__()
        self.trunk = trainable_copy(model)
        self.head = nn.Linear(model.width, 1, device=next(model.parameters()).device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T) values before each token of the completions, in units of reward."""
        return self.head(self.trunk.hidden(prompts, completions)[:, :-1].float()).squeeze(-1)


class TokenPPO(OnlineLearner):
    """Proximal policy optimisation over tokens, with a critic and the KL in the reward.

    Of a process reward each step is rewarded at its last token; the methods without a critic learn from the sum.

    Ziegler et al. 2019, arXiv:1909.08593; Ouyang et al. 2022, arXiv:2203.02155.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> TokenPPO("decoder", envs, policy_kwargs=small, seed=0).learn(256).num_timesteps
        256
    """

    config_class = TokenPPOConfig
    config: TokenPPOConfig

    def trained(self) -> dict[str, nn.Module]:
        """The policy and the critic."""
        if not hasattr(self, "critic"):
            self.critic = Critic(self.policy)  # which is still the reference, and says what of it learns
        return {"policy": self.policy, "critic": self.critic}

    def learning_rates(self) -> list[float | str]:
        """The policy's and the critic's."""
        return [self.config.learning_rate, self.config.critic_learning_rate]

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """Advantages, returns and values, (n, T) all."""
        mask, settings = experience.mask, self.config
        scores = experience.rewards if experience.token_rewards is None else experience.token_rewards
        rewards = penalised_token_rewards(scores, experience.logps, experience.reference_logps, mask, beta=self.beta)
        values = self.in_parts(self.critic, experience.prompts, experience.tokens)
        advantages, returns = token_gae(rewards, values, mask, gamma=settings.gamma, trace=settings.trace)
        return {
            "advantages": whitened(advantages, mask.float()) if settings.whiten else advantages,
            "returns": returns,
            "values": values,
        }

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """The clipped surrogate and the critic's error."""
        targets, settings = batch.targets, self.config
        surrogate = ppo_token_loss(logps, batch.logps, targets["advantages"], clip=settings.clip)
        values = self.critic(batch.prompts, batch.tokens)
        errors = value_loss(values, targets["values"], targets["returns"], clip=settings.value_clip)
        value_error = token_mean(errors, batch.mask)
        self.record_step(value_loss=value_error)
        # Two networks and two learning rates: the sum is only so that one backward pass reaches both.
        return token_mean(surrogate, batch.mask) + value_error
