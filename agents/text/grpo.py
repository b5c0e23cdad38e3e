"""GRPO and its variants: advantages of completions within the group of their prompt, no critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prefenvs.agents.text.advantages import GROUP_ADVANTAGES
from prefenvs.agents.text.kl_control import KL_ESTIMATORS
from prefenvs.agents.text.online import Experience, OnlineConfig, OnlineLearner
from prefenvs.agents.text.options import above, at_least
from prefenvs.agents.text.policy_losses import AGGREGATIONS, ppo_token_loss
from prefenvs.error import unknown_name


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(OnlineConfig):
    """GRPO, by default as Shao et al. 2024 (arXiv:2402.03300) but for smaller groups; GRPO_VARIANTS has others."""

    beta: float = 0.04
    """Weight of the KL."""
    group: int = 8
    """Completions of a prompt (the paper: 64)."""
    clip: float = 0.2
    """Ratios are clipped this far below 1, and above."""
    clip_high: float | None = None
    """Above, if it differs (DAPO: 0.28)."""
    advantage: str = "grpo"
    """Name in GROUP_ADVANTAGES."""
    aggregation: str = "grpo"
    """How tokens become one loss, a name in AGGREGATIONS. "bnpo" and "dapo" differ only where a rollout is cut into
    minibatches: each minibatch's mean over its own tokens, or every token of the rollout alike."""
    kl: str = "loss"
    """Where the KL is: "loss", an estimate a token in the loss as in the paper, or "reward", less it in the reward."""
    kl_estimator: str = "k3"
    """In the loss, a name in KL_ESTIMATORS. The gradient of k3 is that of KL(ref || pi), whose optimum is not
    ref exp(r / beta) / Z; that of k2 is that of KL(pi || ref), where completions are one token long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, group=2)
        above(self, clip=0, clip_high=0)
        for name, known in (
            ("advantage", GROUP_ADVANTAGES),
            ("aggregation", AGGREGATIONS),
            ("kl", ("loss", "reward")),
            ("kl_estimator", KL_ESTIMATORS),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)


GRPO_VARIANTS: dict[str, GRPOConfig] = {
    "bnpo": GRPOConfig(aggregation="bnpo"),
    "dapo": GRPOConfig(aggregation="dapo", clip_high=0.28, beta=0.0),
    "dr_grpo": GRPOConfig(advantage="dr_grpo", aggregation="dr_grpo", beta=0.0),
    "grpo": GRPOConfig(),
    "grpo_population": GRPOConfig(advantage="grpo_population"),
}
"""Settings by the name of the variant: DAPO (arXiv:2503.14476) without its dynamic sampling, Dr. GRPO
(arXiv:2503.20783), and the mean over all tokens. `dataclasses.replace` changes a field."""


class GRPO(OnlineLearner):
    """Group relative policy optimisation. Shao et al. 2024, arXiv:2402.03300.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> GRPO("decoder", envs, policy_kwargs=small, seed=0).learn(256).num_timesteps
        256
    """

    config_class = GRPOConfig
    config: GRPOConfig

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """Advantages (n, 1) within each group, and the mean length (n,) of the rollout."""
        in_reward = self.config.kl == "reward"
        rewards = experience.sequence_rewards(self.beta) if in_reward else experience.rewards
        advantages = GROUP_ADVANTAGES[self.config.advantage](rewards.reshape(-1, self.config.group))
        lengths = experience.mask.sum(-1).float()
        return {
            "advantages": advantages.reshape(-1, 1),
            "mean_length": lengths.mean().expand(len(lengths)),
        }

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """The clipped surrogate a token, and the KL where it is in the loss."""
        settings = self.config
        losses = ppo_token_loss(
            logps, batch.logps, batch.targets["advantages"], clip=settings.clip, clip_high=settings.clip_high
        )  # (n, T)
        if settings.kl == "loss" and self.beta:
            losses = losses + self.beta * KL_ESTIMATORS[settings.kl_estimator](logps - batch.reference_logps)
        constants: dict[str, Any] = {
            "dapo": {"tokens": batch.targets["mean_length"].sum()},  # as many as a minibatch has on average
            "dr_grpo": {"max_tokens": self.language.max_new_tokens},
        }
        return AGGREGATIONS[settings.aggregation](losses, batch.mask, **constants.get(settings.aggregation, {}))
