"""RLOO: REINFORCE over whole completions, the other completions of the prompt as the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prefenvs.agents.text.advantages import rloo
from prefenvs.agents.text.online import Experience, OnlineConfig, OnlineLearner
from prefenvs.agents.text.options import at_least
from prefenvs.agents.text.policy_losses import reinforce


@dataclass(frozen=True, kw_only=True)
class RLOOConfig(OnlineConfig):
    """RLOO, Ahmadian et al. 2024, arXiv:2402.14740."""

    beta: float = 0.03
    """Weight of the KL, in the reward."""
    group: int = 4
    """k, completions of a prompt (the paper: 2 and 4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, group=2)


class RLOO(OnlineLearner):
    """REINFORCE leave-one-out: an unbiased gradient of the reward less the KL. Ahmadian et al. 2024, arXiv:2402.14740.

    A rollout is meant for one gradient step: there is no ratio that would correct for a policy that has moved on.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> RLOO("decoder", envs, policy_kwargs=small, seed=0).learn(256).num_timesteps
        256
    """

    config_class = RLOOConfig
    config: RLOOConfig

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """Advantages (n,): the reward less the mean of the other completions'."""
        rewards = experience.sequence_rewards(self.beta).reshape(-1, self.config.group)
        return {"advantages": rloo(rewards).reshape(-1)}

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """REINFORCE over whole completions."""
        return reinforce(logps.sum(-1), batch.targets["advantages"]).mean()
