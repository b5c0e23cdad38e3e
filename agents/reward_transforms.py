"""What is done to a reward before a policy is trained on it: shaping, aggregation over an ensemble, steps.

Every entry of REWARD_TRANSFORMS is called as `transform(rewards, context, **options)`. The context holds what some of
them compare with; those that need nothing are called without it. `rewards` is (n,), of n responses, where a docstring
does not say (M, n), of an ensemble's members, or (n, K), of the steps of a process reward.

    >>> import torch
    >>> from prefenvs.agents.reward_transforms import REWARD_TRANSFORMS, RewardContext
    >>> context = RewardContext(references=torch.tensor([[0.5, 1.0]]))
    >>> round(float(REWARD_TRANSFORMS["par"](torch.tensor([1.2]), context)), 4)
    0.609

`REWARD_TRANSFORMS["mine"] = mine` adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

_SIGMOID_FIT = (0.2287885117782605, -0.01013091205649198, 0.0002026691698321839)
"""Coefficients of x, x^3 and x^5, least squares at 100 even points of [-5, 5]; of x^0 1/2, of even powers 0."""


@dataclass(frozen=True, eq=False)
class RunningRewards:
    """Moments and range of all rewards seen so far, as 0-dimensional tensors. `updated` gives the next state.

    >>> import torch
    >>> seen = RunningRewards.of(torch.tensor([1.0, 2.0])).updated(torch.tensor([6.0]))
    >>> float(seen.mean), float(seen.high)
    (3.0, 6.0)
    """

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor
    """Sum of squared distances from the mean."""
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, rewards: torch.Tensor) -> RunningRewards:
        """The state after a first batch (n,), n >= 1."""
        mean = rewards.mean()
        count = torch.full_like(mean, rewards.numel())
        return cls(count, mean, (rewards - mean).square().sum(), rewards.amin(), rewards.amax())

    def updated(self, rewards: torch.Tensor) -> RunningRewards:
        """The state after one more batch (n,): that of all batches at once (Chan et al. 1983)."""
        new = RunningRewards.of(rewards)
        count, apart = self.count + new.count, new.mean - self.mean
        return RunningRewards(
            count=count,
            mean=self.mean + apart * new.count / count,
            squares=self.squares + new.squares + apart.square() * self.count * new.count / count,
            low=torch.minimum(self.low, new.low),
            high=torch.maximum(self.high, new.high),
        )

    @property
    def std(self) -> torch.Tensor:
        """() population standard deviation."""
        return (self.squares / self.count).sqrt()


@dataclass(frozen=True, eq=False)
class RewardContext:
    """What rewards are compared with."""

    references: torch.Tensor | None = None
    """(n, M) rewards of M stored responses of the reference policy to each prompt."""
    running: RunningRewards | None = None
    """All rewards seen so far, the present batch included or not as the caller decides."""

    def need_references(self) -> torch.Tensor:
        """`references`, or a ValueError that says how to give them."""
        if self.references is None:
            raise ValueError(
                "This transform reads rewards of reference responses. Pass RewardContext(references=...), (n, M)."
            )
        return self.references

    def need_running(self) -> RunningRewards:
        """`running`, or a ValueError that says how to give it."""
        if self.running is None:
            raise ValueError(
                "This transform reads running statistics. Pass RewardContext(running=RunningRewards.of(rewards)) and "
                "keep them with .updated(rewards)."
            )
        return self.running


_NOTHING = RewardContext()


def identity(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """The reward as it is."""
    return rewards


def centre(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """Reward less the mean of the prompt's references: r - mean_m ref_m."""
    return rewards - context.need_references().mean(-1)


def clip(rewards: torch.Tensor, context: RewardContext, *, width: float = 1.0) -> torch.Tensor:
    """Reward held within `width` running standard deviations of the running mean."""
    seen = context.need_running()
    reach = width * seen.std
    return torch.minimum(torch.maximum(rewards, seen.mean - reach), seen.mean + reach)


def min_max(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """(r - low) / (high - low) of the running range; 0 while that is a point."""
    seen = context.need_running()
    width = seen.high - seen.low
    return torch.where(width > 0, (rewards - seen.low) / torch.where(width > 0, width, 1.0), 0.0)


def mean_std(rewards: torch.Tensor, context: RewardContext, *, eps: float = 1e-8) -> torch.Tensor:
    """Running z-score, (r - mean) / (std + eps)."""
    seen = context.need_running()
    return (rewards - seen.mean) / (seen.std + eps)


def lsc(rewards: torch.Tensor, context: RewardContext, *, quantile: float = 0.85) -> torch.Tensor:
    """Log-sigmoid centred: log s(r - ref), ref the quantile of a normal law fitted to the prompt's reference rewards.

    Wang et al. 2024, arXiv:2402.00742; the normal fit and the 0.85 as in Fu et al. 2025, arXiv:2502.18770. The sum over
    several rewards is the log-probability that all are good.

    Args:
        rewards: (n,).
        context: With references (n, M); M = 1 has no spread and is used as it is.
        quantile: In (0, 1).

    Returns:
        (n,) in nats, below 0.
    """
    references = context.need_references()
    spread = references.std(-1) if references.shape[-1] > 1 else torch.zeros_like(references[:, 0])
    deviations = 2**0.5 * torch.erfinv(torch.full_like(spread, 2 * quantile - 1))
    return logsigmoid(rewards - (references.mean(-1) + deviations * spread))


def par(rewards: torch.Tensor, context: RewardContext, *, slope: float = 1.0) -> torch.Tensor:
    """Preference as reward: mean_m s(k (r - ref_m)), the chance that y beats a reference response (Bradley-Terry).

    Fu et al. 2025, arXiv:2502.18770; k = 1 and M = 10 there, of which one is said to be enough. In (0, 1).
    """
    return _against_references(rewards, context, lambda apart: (slope * apart).sigmoid())


def slow_then_fast(rewards: torch.Tensor, context: RewardContext, *, shift: float = 3.0) -> torch.Tensor:
    """mean_m s(r - ref_m - 3): a sigmoid that is still flat where training starts. Fu et al. 2025, arXiv:2502.18770."""
    return _against_references(rewards, context, lambda apart: (apart - shift).sigmoid())


def sigmoid(rewards: torch.Tensor, context: RewardContext = _NOTHING, *, slope: float = 1.0) -> torch.Tensor:
    """s(k r), not centred. In (0, 1)."""
    return (slope * rewards).sigmoid()


def tanh(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """The hyperbolic tangent of r, not centred. In (-1, 1)."""
    return rewards.tanh()


def centred_tanh(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """mean_m tanh(r - ref_m). In (-1, 1)."""
    return _against_references(rewards, context, torch.tanh)


def polynomial(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """Least-squares polynomial of degree 5 of the sigmoid over [-5, 5], held at 0 below and 1 above; not centred.

    As in Fu et al. 2025, arXiv:2502.18770.
    """
    squares = rewards.clamp(-5.0, 5.0).square()  # so that the branch not taken cannot overflow
    linear, cubic, quintic = _SIGMOID_FIT
    inside = 0.5 + rewards * (linear + squares * (cubic + squares * quintic))
    return torch.where(rewards.abs() < 5, inside, (rewards > 0).to(rewards.dtype))


def centred_polynomial(rewards: torch.Tensor, context: RewardContext) -> torch.Tensor:
    """mean_m of `polynomial` at r - ref_m."""
    return _against_references(rewards, context, polynomial)


def saturate(rewards: torch.Tensor, context: RewardContext = _NOTHING, *, ceiling: float) -> torch.Tensor:
    """min(r, c): nothing is gained beyond the ceiling c. Moskovitz et al. 2023 (PPO-SAT), arXiv:2310.04373."""
    return rewards.clamp(max=ceiling)


def mean(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """(n,) mean over the members of (M, n)."""
    return rewards.mean(0)


def median(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """(n,) median over the members of (M, n), the mean of the middle two where M is even.

    Eisenstein et al. 2023, arXiv:2312.09244.
    """
    return rewards.quantile(0.5, dim=0)


def worst_case(rewards: torch.Tensor, context: RewardContext = _NOTHING) -> torch.Tensor:
    """(n,) least over the members of (M, n), WCO. Coste et al. 2023, arXiv:2310.02743."""
    return rewards.amin(0)


def uncertainty_weighted(
    rewards: torch.Tensor, context: RewardContext = _NOTHING, *, weight: float = 0.5, unbiased: bool
) -> torch.Tensor:
    """Mean less a multiple of the variance over the members of (M, n), UWO: mean - lambda var.

    Coste et al. 2023, arXiv:2310.02743. Its own code divides by M - 1 in PPO and by M in best-of-n, so say which.

    Args:
        rewards: (M, n); M >= 2 where unbiased.
        context: Not read.
        weight: lambda, per unit of reward: it depends on the scale of the members.
        unbiased: Whether the variance divides by M - 1.

    Returns:
        (n,) in units of reward.
    """
    return rewards.mean(0) - weight * rewards.var(0, correction=int(unbiased))


def mean_minus_std(rewards: torch.Tensor, context: RewardContext = _NOTHING, *, weight: float = 1.0) -> torch.Tensor:
    """(n,) mean less `weight` population standard deviations over the members of (M, n).

    Eisenstein et al. 2023, arXiv:2312.09244.
    """
    return rewards.mean(0) - weight * rewards.std(0, correction=0)


def clip_steps(rewards: torch.Tensor, context: RewardContext = _NOTHING, *, threshold: float) -> torch.Tensor:
    """(n, K) min(q_k - eta, 0) of step qualities (n, K): a further good step gains nothing.

    Gao et al. 2024, arXiv:2410.15115. Padding with any quality of at least eta counts 0.
    """
    return (rewards - threshold).clamp(max=0.0)


def delta_steps(
    rewards: torch.Tensor, context: RewardContext = _NOTHING, *, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Differences of step qualities (n, K), whose sum is q_1 and whose reward to go is q_k up to the last step but one.

    r_k = q_k - q_{k+1}, r_{K-1} = q_{K-1}, r_K = 0. Gao et al. 2024, arXiv:2410.15115. A single step has reward 0.

    Args:
        rewards: (n, K) q.
        context: Not read.
        mask: (n, K) 1 at real steps, which begin the row; None where all rows have K steps.

    Returns:
        (n, K); 0 at padding.
    """
    steps = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask.bool()
    counted = steps & _shifted(steps)  # all steps but each row's last
    kept = torch.where(counted, rewards, 0.0)
    return kept - _shifted(kept)


REWARD_TRANSFORMS: dict[str, Callable[..., torch.Tensor]] = {
    "centre": centre,
    "centred_polynomial": centred_polynomial,
    "centred_tanh": centred_tanh,
    "clip": clip,
    "clip_steps": clip_steps,
    "delta_steps": delta_steps,
    "identity": identity,
    "lsc": lsc,
    "mean": mean,
    "mean_minus_std": mean_minus_std,
    "mean_std": mean_std,
    "median": median,
    "min_max": min_max,
    "par": par,
    "polynomial": polynomial,
    "saturate": saturate,
    "sigmoid": sigmoid,
    "slow_then_fast": slow_then_fast,
    "tanh": tanh,
    "uncertainty_weighted": uncertainty_weighted,
    "worst_case": worst_case,
}
"""Reward transforms by name, all called as `transform(rewards, context, **options)`."""


def _against_references(
    rewards: torch.Tensor, context: RewardContext, function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """(n,) mean over references of a function of r - ref_m."""
    return function(rewards.unsqueeze(-1) - context.need_references()).mean(-1)


def _shifted(values: torch.Tensor) -> torch.Tensor:
    """(n, K) the next step's value at each step, 0 after the last."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
