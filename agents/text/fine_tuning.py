"""Learning from the reference's own completions: weighted or sorted by reward, and the best of n of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prefenvs.agents.text.online import Experience, OnlineConfig, OnlineLearner
from prefenvs.agents.text.options import above
from prefenvs.agents.text.sample_weights import rejection_sample, reward_weights
from prefenvs.error import unknown_name
from prefenvs.metrics.over_optimisation import best_of_n_kl

SELECTIONS = ("best", "rejection", "weights")


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(OnlineConfig):
    """Likelihood of the reference's completions, weighted by reward."""

    beta: float = 0.5
    """How much reward is worth a nat: towards 0 the best completion alone counts. "best" does not read it."""
    group: int = 16
    """N, completions of a prompt that are weighed against each other."""
    selection: str = "weights"
    """"weights": softmax of r / beta (Peters and Schaal 2007); "rejection": those that statistical rejection sampling
    keeps (Liu et al. 2023, arXiv:2309.06657); "best": the one of the highest reward (Dong et al. 2023, RAFT,
    arXiv:2304.06767)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection not in SELECTIONS:
            raise unknown_name("selection", self.selection, SELECTIONS)
        if self.selection != "best":
            above(self, beta=0)


class RewardWeighted(OnlineLearner):
    """Supervised fine-tuning on completions of the reference, weighted by reward within their prompt.

    Weights and rejection tend to ref exp(r / beta) / Z as N grows, "best" to the law of the best of N.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> RewardWeighted("decoder", envs, policy_kwargs=small, seed=0).learn(256).num_timesteps
        256
    """

    config_class = FineTuningConfig
    config: FineTuningConfig
    on_policy = False  # samples of a policy that moves would be weighted over and over

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """Weights (n,) that sum to 1 in each group."""
        rewards = experience.rewards.reshape(-1, self.config.group)
        if self.config.selection == "weights":
            weights = reward_weights(rewards, beta=self.beta)
        elif self.config.selection == "best":
            weights = torch.nn.functional.one_hot(rewards.argmax(-1), self.config.group).float()
        else:
            kept = rejection_sample(rewards.cpu(), beta=self.beta, rng=self.rng).to(rewards)
            weights = kept / kept.sum(-1, keepdim=True)
        return {"weights": weights.reshape(-1)}

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """Weighted negative log-likelihood, the mean of the groups."""
        return -(batch.targets["weights"] * logps.sum(-1)).sum() * self.config.group / len(logps)


@dataclass(frozen=True, kw_only=True)
class BestOfNConfig(OnlineConfig):
    """The best of n completions."""

    group: int = 16
    """n."""


class BestOfN(OnlineLearner):
    """Trains nothing but the reward model: of n completions of the reference it gives the one of the highest reward.

    Its KL to the reference is at most log n - (n - 1) / n. Stiennon et al. 2020, arXiv:2009.01325.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> learner = BestOfN("decoder", envs, policy_kwargs=small, seed=0).learn(64)
        >>> learner.predict(envs.reset(seed=0)[0])[0].shape
        (64, 4)
    """

    config_class = BestOfNConfig
    config: BestOfNConfig
    on_policy = False

    def complete(self, prompts: Tensor, rng: torch.Generator, *, deterministic: bool = False) -> Tensor:
        """(n, T) the best of `group` completions of each prompt (n, P); drawn, also where `deterministic` is asked.

        Raises:
            ValueError: before there is a reward to choose by.
        """
        if self.transformed is None:
            raise ValueError("there is no reward model yet: call learn() or prepare() first.")
        count = self.config.group
        repeated = prompts.repeat_interleave(count, 0)
        tokens = self.sample(self.policy, repeated, rng)
        best = self.transformed.aggregated(repeated, tokens).reshape(-1, count).argmax(-1)
        return tokens.reshape(len(prompts), count, -1)[torch.arange(len(prompts), device=best.device), best]

    def log_ratios(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) the bound log n - (n - 1) / n of the KL in nats: the law of the best of n has no density to read."""
        return torch.full((len(prompts),), float(best_of_n_kl(self.config.group)), device=prompts.device)

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """None: nothing is trained."""
        return {}

    def iterate(self) -> None:
        """Write and score a rollout, for the log: there is nothing to train."""
        experience = self.roll_out()
        self.num_timesteps += len(experience.proxy)
        self.record_rollout(experience)
