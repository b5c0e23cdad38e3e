"""PPO with SB3's interface and numbers, hand-written acting and a hand-written update."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from prefenvs.agents.fused import (
    MLP,
    Captured,
    FusedAdam,
    covers_adam,
    hooked,
    linear_layers,
    numpy_kernels,
    torch_kernels,
)

_POLICY_METHODS = {"evaluate_actions", "extract_features", "get_distribution", "predict_values"}
"""What a policy may do in a way of its own."""

Array = Any
"""A tensor, or where `numpy_kernels` cover the networks an array of numpy."""


class PPO(stable_baselines3.PPO):
    """Stable-Baselines3's PPO, the same numbers from the same seed up to rounding, in less time.

    Schulman et al. 2017, arXiv:1707.06347. SB3's own loop collects the rollouts, but acts by `PPOUpdate.act`, and an
    update runs without autograd; small networks on the CPU run in numpy. What `covered_parts` says it does not cover,
    SB3's own code does.

    Example:
        >>> from prefenvs.agents import PPO
        >>> model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(128)
        >>> model.num_timesteps
        128
    """

    cuda_graphs = True
    """Whether acting and updates on a GPU are recorded once and replayed; `train/graph_seconds` logs how long recording
    took."""
    _update: PPOUpdate | None = None

    def collect_rollouts(self, *arguments: Any, **named: Any) -> bool:
        """As SB3: play `n_steps` of each environment, with the layers that the policy has when they begin."""
        if "forward" in vars(self.policy):
            return super().collect_rollouts(*arguments, **named)
        self.policy.forward = self._first_act  # type: ignore[method-assign]
        try:
            return super().collect_rollouts(*arguments, **named)
        finally:
            if isinstance(getattr(vars(self.policy).get("forward"), "__self__", None), PPO | PPOUpdate):
                del self.policy.forward  # it is ours, not a callback's

    def _first_act(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's `forward`, which from now on is `PPOUpdate.act` if that covers it: callbacks have begun."""
        del self.policy.forward
        update = self._covering_update()
        if update is None:
            return self.policy.forward(obs, deterministic)
        update.prepare(capture=self._captures)
        self.policy.forward = update.act  # type: ignore[method-assign]
        return update.act(obs, deterministic)

    @torch.no_grad()
    def train(self) -> None:
        """As SB3: `n_epochs` passes over the rollout in minibatches."""
        update = self._covering_update()
        if update is None:
            with torch.enable_grad():
                super().train()
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        clip_vf = None if self.clip_range_vf is None else self.clip_range_vf(self._current_progress_remaining)  # type: ignore[operator]
        update.prepare(capture=self._captures)
        rollout = update.rollout(self.rollout_buffer)
        epochs: list[list[Outcome]] = []
        while len(epochs) < self.n_epochs and update.moved:
            order = update.array(torch.from_numpy(np.random.permutation(len(rollout.returns))).to(self.device))
            shuffled = Rollout(*(field[order] for field in rollout))
            if self.normalize_advantage:
                shuffled = shuffled._replace(advantages=standardized(shuffled.advantages, self.batch_size))
            epochs.append([])
            for start in range(0, len(order), self.batch_size):
                batch = Rollout(*(field[start : start + self.batch_size] for field in shuffled))
                epochs[-1].append(update.step(batch, clip, clip_vf))
                if not update.moved:
                    break
        self._n_updates += len(epochs)
        self._log(epochs, clip, clip_vf)

    def _covering_update(self) -> PPOUpdate | None:
        """The hand-written update of the present networks, or None if they are not covered."""
        parts = covered_parts(self)
        if parts is None:
            return None
        layers = [layer for network, _ in parts[0] for layer in network]
        small = numpy_kernels.cover(layers, max(self.batch_size, self.n_envs))
        chosen = (*parts, numpy_kernels if small else torch_kernels)
        if self._update is None or self._update.parts != chosen:
            self._update = PPOUpdate(self, chosen)
        return self._update

    @property
    def _captures(self) -> bool:
        return self.cuda_graphs and self.device.type == "cuda"

    def _log(self, epochs: list[list[Outcome]], clip: float, clip_vf: float | None) -> None:
        """What SB3 logs, under its names."""
        values, returns = self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()
        losses = mean_losses([outcome for epoch in epochs for outcome in epoch], clip)
        losses["approx_kl"] = mean_losses(epochs[-1], clip)["approx_kl"]
        last = mean_losses(epochs[-1][-1:], clip)
        weights = {"policy_gradient_loss": 1.0, "entropy_loss": self.ent_coef, "value_loss": self.vf_coef}
        losses["loss"] = sum(weight * last[name] for name, weight in weights.items())
        for name, value in losses.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip)
        if clip_vf is not None:
            self.logger.record("train/clip_range_vf", clip_vf)
        if self._update is not None and self._update.capture_seconds:
            self.logger.record("train/graph_seconds", self._update.capture_seconds)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which find their own networks anew."""
        return {name: value for name, value in vars(self).items() if name != "_update"}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_update"]


class Rollout(NamedTuple):
    """Steps of a rollout in float32, B rows each, under SB3's names."""

    observations: Array
    actions: Array
    values: Array
    log_probs: Array
    advantages: Array
    returns: Array


class Outcome(NamedTuple):
    """What one minibatch of B rows gave; its losses are computed from it, for all minibatches at once."""

    log_ratio: Array
    """(B,) log-probability of each action less what it was in the rollout."""
    error: Array
    """(B,) value less return."""
    entropy: Array
    """() entropy of the actions' law, the mean over the rows."""
    advantages: Array
    """(B,) advantages, standardized if they are to be."""


def standardized(advantages: Array, batch_size: int) -> Array:
    """(B,) advantages less the mean and divided by the standard deviation of their own minibatch; one alone is kept."""
    whole = len(advantages) // batch_size * batch_size
    found = advantages + 0.0
    for part in (found[:whole].reshape(-1, batch_size), found[whole:].reshape(1, -1)):
        if part.shape[1] > 1:
            part -= part.mean(1, keepdims=True)
            part /= ((part * part).sum(1, keepdims=True) / (part.shape[1] - 1)) ** 0.5 + 1e-8
    return found


def mean_losses(outcomes: list[Outcome], clip: float) -> dict[str, float]:
    """Means over minibatches of SB3's losses, by the names they are logged under."""
    xp = torch if isinstance(outcomes[0].error, Tensor) else np
    log_ratio, error, advantages = (
        torch.as_tensor(xp.concatenate([getattr(outcome, name) for outcome in outcomes]))
        for name in ("log_ratio", "error", "advantages")
    )
    sizes = [len(outcome.error) for outcome in outcomes]
    counts = torch.tensor(sizes, device=error.device)
    share = (1 / (counts * len(outcomes))).repeat_interleave(counts)  # of a row in the mean
    ratio = log_ratio.exp()
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
    rows = {
        "policy_gradient_loss": -surrogate,
        "value_loss": error.square(),
        "approx_kl": ratio - 1 - log_ratio,
        "clip_fraction": ((ratio - 1).abs() > clip).float(),
    }
    means = dict(zip(rows, (torch.stack(list(rows.values())) @ share).tolist(), strict=True))
    return means | {"entropy_loss": -float(xp.stack([outcome.entropy for outcome in outcomes]).mean())}


class PPOUpdate:
    """Acting and one minibatch of PPO on an actor and a critic MLP, forwards and backwards by hand.

    It computes in tensors on any device, or in numpy where `numpy_kernels` cover both networks.
    """

    def __init__(self, model: stable_baselines3.PPO, parts: tuple[Any, ...]) -> None:
        """Update the networks of `model`; `parts` is what `covered_parts` found in it and the kernels to use."""
        self.model, self.parts, kernels = model, parts, parts[-1]
        self.array, self._xp = kernels.array, kernels.xp
        self.actor, self.critic = (MLP(*network, kernels=kernels) for network in parts[0])
        self._law = _Categorical if isinstance(model.action_space, gym.spaces.Discrete) else _Gaussian
        self._device: torch.device | None = None
        self.adam = FusedAdam(model.policy.optimizer)
        self.moved = True
        """Whether the last step moved the weights; a target_kl may forbid it."""

    def prepare(self, *, capture: bool = False) -> None:
        """Begin a stretch of calls. Gradients are parts of one flat tensor, whose norm is clipped in one call.

        Args:
            capture: replay acting and steps as CUDA graphs; no steps where a target_kl has each looked at.
        """
        policy: Any = self.model.policy
        params = list(policy.parameters())
        sizes = [param.numel() for param in params]
        if params[0].device != self._device:  # what a recording reads and writes stays where it is
            self._device = params[0].device
            self._flat, one = torch.zeros(sum(sizes), device=self._device), torch.ones((), device=self._device)
            self._gradient, self._one = self.array(self._flat), self.array(one)
            self.law: Any = self._law(self.parts[-1], policy)
            self._acting, self._captured = Captured(self._packed_act), Captured(self._packed_step)
        for param, part in zip(params, self._flat.split(sizes), strict=True):
            param.grad = part.view_as(param)
        for part in (self.adam, self.actor, self.critic):
            part.prepare()
        self.law.prepare(policy)
        self.moved = True
        self._key: tuple[Any, ...] | None = None
        if capture:
            self._key = (self.adam.key, self.model.max_grad_norm, self.model.vf_coef, self.model.ent_coef)

    @property
    def capture_seconds(self) -> float:
        """Spent on recording CUDA graphs."""
        return self._acting.seconds + self._captured.seconds

    def rollout(self, buffer: RolloutBuffer) -> Rollout:
        """A full buffer as (steps * E, ...) rows in the order in which SB3 numbers the steps."""
        if not buffer.generator_ready:  # as SB3's own `get` leaves it
            for name in Rollout._fields:
                setattr(buffer, name, buffer.swap_and_flatten(getattr(buffer, name)))
            buffer.generator_ready = True
        flat = [torch.as_tensor(getattr(buffer, n), dtype=torch.float32, device=buffer.device) for n in Rollout._fields]
        return Rollout(
            *map(self.array, (flat[0].flatten(1), flat[1].flatten(1), *(field.flatten() for field in flat[2:])))
        )

    @torch.no_grad()
    def act(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """(B, *act) actions, (B, 1) values and (B,) log-probabilities: the policy's `forward`, drawing as it does."""
        rows = self.array(obs.float().flatten(1))
        if self._key is None or deterministic:
            actions, values, log_prob = (torch.as_tensor(part) for part in self._act(rows, deterministic))
        else:
            packed = self._acting(self._key, rows)
            actions, values, log_prob = packed[:, :-2], packed[:, -2:-1], packed[:, -1]
            if isinstance(self.model.action_space, gym.spaces.Discrete):
                actions = actions.long()
        return actions.reshape(-1, *(self.model.action_space.shape or ())), values, log_prob

    def _packed_act(self, rows: Tensor) -> Tensor:
        """`_act` for recording; whole numbers below 2^24 are exact."""
        actions, values, log_prob = self._act(rows)
        return torch.cat([actions.float(), values, log_prob[:, None]], 1)

    def _act(self, rows: Array, deterministic: bool = False) -> tuple[Array, Array, Array]:
        """(B, act) actions for (B, obs) observations, (B, 1) values and (B,) log-probabilities."""
        outputs = self.actor.forward(rows)
        actions = self.law.mode(outputs) if deterministic else self.law.sample(outputs)
        log_prob, _ = self.law.log_prob(outputs, actions)
        return actions, self.critic.forward(rows) + 0.0, log_prob

    def step(self, batch: Rollout, clip: float, clip_vf: float | None) -> Outcome:
        """Update the policy by one minibatch. Call it under `torch.no_grad`.

        Args:
            batch: B rows, with their advantages standardized if they are to be.
            clip: range of the probability ratio about 1.
            clip_vf: range of the value about the old value, or None.
        """
        if self._key is None or self.model.target_kl is not None:
            return self._step(batch, clip, clip_vf)
        self._clips, B = (clip, clip_vf), len(batch.returns)
        packed = self._captured((*self._key, *self._clips), *batch)
        return Outcome(packed[:B], packed[B:-1], packed[-1], batch.advantages)

    def _packed_step(self, *fields: Tensor) -> Tensor:
        """`_step` of a rollout's fields, for recording."""
        log_ratio, error, entropy, _ = self._step(Rollout(*fields), *self._clips)
        return torch.cat([log_ratio, error, entropy[None]])

    def _step(self, batch: Rollout, clip: float, clip_vf: float | None) -> Outcome:
        model, xp, B = self.model, self._xp, len(batch.returns)
        log_prob, entropy = self.law.log_prob(self.actor.forward(batch.observations), batch.actions)
        values = self.critic.forward(batch.observations)[:, 0]
        log_ratio = log_prob - batch.log_probs
        ratio = xp.exp(log_ratio)
        if clip_vf is not None:
            change = values - batch.values
            values = batch.values + change.clip(-clip_vf, clip_vf)
        error = values - batch.returns
        outcome = Outcome(log_ratio, error, entropy, batch.advantages)
        if model.target_kl is not None:
            self.moved = float((ratio - 1 - log_ratio).mean()) <= 1.5 * model.target_kl
            if not self.moved:
                return outcome

        # The gradient stops where the ratio has left its range the way that pays.
        inside = batch.advantages * (ratio - 1) <= abs(batch.advantages) * clip
        self.actor.backward(self.law.backward(batch.advantages * ratio * inside / -B, model.ent_coef))
        by_value = error * (2 * model.vf_coef / B)
        if clip_vf is not None:
            by_value *= abs(change) <= clip_vf
        self.critic.backward(by_value[:, None])
        norm = xp.sqrt(self._gradient @ self._gradient)
        self._gradient *= xp.minimum(model.max_grad_norm / (norm + 1e-6), self._one)
        self.adam.step()
        return outcome


class _Gaussian:
    """Independent normal actions about the outputs, with a log standard deviation that no observation changes."""

    def __init__(self, kernels: ModuleType, policy: Any) -> None:
        self.array, self._xp = kernels.array, kernels.xp
        self._ones = self.array(torch.ones_like(policy.log_std))

    def prepare(self, policy: Any) -> None:
        """Look the policy's parameter and its gradient up anew."""
        self._log_std, self._gradient = self.array(policy.log_std), self.array(policy.log_std.grad)

    def mode(self, mean: Array) -> Array:
        """(B, act) the likeliest actions."""
        return mean + 0.0

    def sample(self, mean: Array) -> Array:
        """(B, act) actions, drawn as torch's Normal draws them."""
        noise = torch.as_tensor(mean).new_empty(mean.shape).normal_()
        return mean + self.array(noise) * self._xp.exp(self._log_std)

    def log_prob(self, mean: Array, actions: Array) -> tuple[Array, Array]:
        """(B,) log-probabilities of (B, act) actions and the () entropy of their law."""
        self._inverse = self._xp.exp(-self._log_std)
        self._z = (actions - mean) * self._inverse
        self._squares = self._z * self._z
        scale = self._log_std @ self._ones + 0.5 * math.log(2 * math.pi) * len(self._log_std)
        return self._squares @ (-0.5 * self._ones) - scale, scale + 0.5 * len(self._log_std)

    def backward(self, by_log_prob: Array, ent_coef: float) -> Array:
        """(B, act) gradient by the mean; writes the gradient by `log_std`, the entropy's bonus included."""
        self._gradient[:] = by_log_prob @ (self._squares - 1) - ent_coef
        return self._z * self._inverse * by_log_prob[:, None]


class _Categorical:
    """Discrete actions by softmax of the outputs."""

    def __init__(self, kernels: ModuleType, policy: Any) -> None:
        self.array, self._xp = kernels.array, kernels.xp
        self._numbers = self.array(torch.arange(policy.action_space.n, device=policy.device))

    def prepare(self, policy: Any) -> None:
        """Nothing is the policy's own."""

    def mode(self, logits: Array) -> Array:
        """(B, 1) the likeliest actions."""
        return logits.argmax(1)[:, None]

    def sample(self, logits: Array) -> Array:
        """(B, 1) actions, drawn as torch's Categorical draws them."""
        return self.array(torch.multinomial(torch.as_tensor(logits).softmax(1), 1, replacement=True))

    def log_prob(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """(B,) log-probabilities of (B, 1) actions, and the () mean entropy of their laws."""
        xp = self._xp
        shifted = logits - xp.amax(logits, 1, keepdims=True)
        self._log_p = shifted - xp.log(xp.exp(shifted).sum(1, keepdims=True))
        self._p = xp.exp(self._log_p)
        self._entropy = -(self._p * self._log_p).sum(1)
        self._chosen = self._numbers == actions
        return xp.where(self._chosen, self._log_p, 0.0).sum(1), self._entropy.mean()

    def backward(self, by_log_prob: Array, ent_coef: float) -> Array:
        """(B, n) gradient by the logits: of log p_a it is [a] - p, of the entropy H it is -p (log p + H)."""
        by_log_prob = by_log_prob[:, None]
        grad = self._xp.where(self._chosen, by_log_prob, 0.0) - self._p * by_log_prob
        if ent_coef:
            grad += (ent_coef / len(grad)) * self._p * (self._log_p + self._entropy[:, None])
        return grad


def covered_parts(model: stable_baselines3.PPO) -> tuple[Any, ...] | None:
    """The modules and optimiser that `PPOUpdate` would work on; None if it would not do what SB3 does.

    It covers Box observations that are not images, Box and Discrete actions, SB3's MlpPolicy with layers of ReLU or
    tanh in float32 for both actor and critic, torch's Adam, SB3's rollout buffer, and no gSDE.
    """
    policy: Any = model.policy
    space, extractor = model.observation_space, getattr(policy, "mlp_extractor", None)
    plain = isinstance(space, gym.spaces.Box) and not is_image_space(space)
    acting = isinstance(model.action_space, gym.spaces.Box | gym.spaces.Discrete)
    kinds = (type(policy), type(extractor), type(model.rollout_buffer))
    if not plain or not acting or model.use_sde or kinds != (ActorCriticPolicy, MlpExtractor, RolloutBuffer):
        return None
    if type(policy.features_extractor) is not FlattenExtractor or policy.squash_output:
        return None
    if hooked([policy, extractor, policy.features_extractor]) or _POLICY_METHODS.intersection(vars(policy)):  # type: ignore[list-item]
        return None
    trunks = ((extractor.policy_net, policy.action_net), (extractor.value_net, policy.value_net))  # type: ignore[union-attr]
    networks = [linear_layers([*trunk, head]) for trunk, head in trunks]
    params = list(policy.parameters())
    frozen = not all(param.requires_grad for param in params)
    if None in networks or frozen or not covers_adam(policy.optimizer, params):
        return None
    return (networks, policy.optimizer, policy)
