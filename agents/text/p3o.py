"""P3O: policy gradients on the difference of two completions' rewards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prefenvs.agents.text.advantages import penalised_rewards
from prefenvs.agents.text.online import Experience, OnlineConfig, OnlineLearner
from prefenvs.agents.text.options import above
from prefenvs.agents.text.policy_losses import p3o_joint, p3o_separate
from prefenvs.error import unknown_name

P3O_LOSSES = {"joint": p3o_joint, "separate": p3o_separate}
"""By what is clipped: the two completions' ratios together (V2), or each alone (V1)."""


@dataclass(frozen=True, kw_only=True)
class P3OConfig(OnlineConfig):
    """P3O, Wu et al. 2023, arXiv:2310.00212."""

    group: int = 2
    """Always the two of a pair."""
    clip: float = 0.2
    """How far ratios, or the difference of their logarithms, may go."""
    clipping: str = "separate"
    """separate or joint."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, clip=0)
        if self.clipping not in P3O_LOSSES:
            raise unknown_name("clipping", self.clipping, P3O_LOSSES)
        if self.group != 2:
            raise ValueError(f"group={self.group}, and P3O compares two completions: expected 2.")


class P3O(OnlineLearner):
    """Pairwise proximal policy optimisation: rewards that differ by a constant a prompt teach the same.

    Wu et al. 2023, arXiv:2310.00212. Ratios are of whole completions, and the KL is in the reward, without gradient.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion", budget=200)
        >>> small = {"layers": 1, "width": 16, "heads": 2, "steps": 50, "cache": False}
        >>> P3O("decoder", envs, policy_kwargs=small, seed=0).learn(256).num_timesteps
        256
    """

    config_class = P3OConfig
    config: P3OConfig

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """Half the difference (n,) to the other completion's reward, less the KL."""
        # Rewards are subtracted before the penalty is, so that what they share cancels to the last bit.
        half = 0.5 * (experience.rewards - experience.rewards.reshape(-1, 2).flip(-1).reshape(-1))
        logps, reference_logps = experience.logps.sum(-1), experience.reference_logps.sum(-1)
        return {"rewards": penalised_rewards(half, logps, reference_logps, beta=self.beta)}

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """The mean over pairs of what `clipping` names."""
        now, before = (values.sum(-1).reshape(-1, 2) for values in (logps, batch.logps))
        loss = P3O_LOSSES[self.config.clipping]
        return loss(now, before, batch.targets["rewards"].reshape(-1, 2), clip=self.config.clip).mean()
