"""SAC with SB3's interface and numbers, and a hand-written update."""

from __future__ import annotations

import math
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor, ContinuousCritic, SACPolicy
from torch import Tensor

from prefenvs.agents.fused import (
    MLP,
    Captured,
    FusedAdam,
    addresses,
    covers_adam,
    hooked,
    linear_layers,
    numpy_kernels,
    parameters_of,
    side_by_side,
    torch_kernels,
    write_gradients,
)
from prefenvs.agents.replay import TensorReplayBuffer
from prefenvs.tasks.product import linear

_SQUASH_EPSILON = 1e-6
"""SB3's guard in the logarithm of tanh's derivative."""


class SAC(stable_baselines3.SAC):
    """Stable-Baselines3's SAC, the same numbers from the same seed up to the order of sums, in less time.

    Haarnoja et al. 2018, arXiv:1812.05905. Experience is kept in tensors (`TensorReplayBuffer`), an update runs without
    autograd (`SACUpdate`), and the actor of a few environments acts in numpy. What `covered_parts` says is not covered,
    SB3's own code does.

    Example:
        >>> from prefenvs.agents import SAC
        >>> model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=50, seed=0).learn(60)
        >>> model.num_timesteps
        60
    """

    cuda_graphs = True
    """Whether acting and updates on a GPU are recorded once and replayed; `train/graph_seconds` logs how long recording
    updates took."""
    _update: SACUpdate | None = None
    _acting: _SquashedGaussian | None = None

    def _setup_model(self) -> None:
        plain = isinstance(self.observation_space, gym.spaces.Box) and self.n_steps == 1
        if self.replay_buffer_class is None and plain and not self.optimize_memory_usage:
            self.replay_buffer_class = TensorReplayBuffer
        super()._setup_model()

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        warming_up = self.num_timesteps < learning_starts
        parts = None if warming_up or action_noise is not None else acting_parts(self)
        if parts is None:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        if self._acting is None or self._acting.parts != parts:
            self._acting = _SquashedGaussian(*parts)
        self._acting.prepare(backward=False, capture=self._captures)
        assert isinstance(self._last_obs, np.ndarray)
        scaled = self._acting.act(self._last_obs).reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        return self.policy.unscale_action(scaled), scaled

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """As SB3: sample and update `gradient_steps` times."""
        parts = covered_parts(self)
        if parts is None or gradient_steps < 1:
            super().train(gradient_steps, batch_size)
            return
        if self._update is None or self._update.parts != parts:
            self._update = SACUpdate(self, parts)
        optimizers = [self.actor.optimizer, self.critic.optimizer, self.ent_coef_optimizer]
        self._update_learning_rate([optimizer for optimizer in optimizers if optimizer is not None])
        assert self.replay_buffer is not None
        self._update.prepare(capture=self._captures)
        losses = []
        for step in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            losses.append(self._update.step(batch, move_target=step % self.target_update_interval == 0))
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        means = losses[0] if len(losses) == 1 else torch.stack(losses).mean(0)
        for name, loss in zip(self._update.logged, means.tolist(), strict=True):
            self.logger.record(f"train/{name}", loss)
        if self._update.capture_seconds:
            self.logger.record("train/graph_seconds", self._update.capture_seconds)

    @property
    def _captures(self) -> bool:
        return self.cuda_graphs and self.device.type == "cuda"

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which find their own networks anew."""
        return {name: value for name, value in vars(self).items() if name not in ("_update", "_acting")}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_update", "_acting"]


class SACUpdate:
    """One update of SAC's networks, forwards and backwards by hand, on any device.

    Three savings beside those of `MLP`: the actor reads present and next observations in one pass, the critics' own
    gradients are not computed where only the actor's are wanted, and Adam is one call a network.
    """

    def __init__(self, model: stable_baselines3.SAC, parts: tuple[Any, ...]) -> None:
        """Update the networks of `model`; `parts` is what `covered_parts` found in it."""
        self.model, self.parts = model, parts
        trunk, mean, log_std, *values = parts[0]
        self.actor = _SquashedGaussian(trunk, mean, log_std, torch_kernels)
        networks = [MLP(*value) for value in values]
        self.critics, self.targets = networks[:2], networks[2:]
        self._weights, self._target_weights = (
            [p for network in pair for p in parameters_of(network.layers)] for pair in (self.critics, self.targets)
        )
        self.actor_adam, self.critic_adam = FusedAdam(model.actor.optimizer), FusedAdam(model.critic.optimizer)
        self.ent_coef_adam = None if model.ent_coef_optimizer is None else FusedAdam(model.ent_coef_optimizer)
        self.logged = ["ent_coef", "critic_loss", "actor_loss"] + ["ent_coef_loss"] * (self.ent_coef_adam is not None)
        """What `step` returns, by SB3's names."""
        self._captured = {move: Captured(partial(self._packed_step, move)) for move in (True, False)}

    @property
    def capture_seconds(self) -> float:
        """Spent on recording CUDA graphs."""
        return sum(captured.seconds for captured in self._captured.values())

    def prepare(self, *, capture: bool = False) -> None:
        """Begin a stretch of steps between which nothing else touches networks and optimisers.

        Args:
            capture: replay the steps as CUDA graphs.
        """
        adams = [adam for adam in (self.actor_adam, self.critic_adam, self.ent_coef_adam) if adam is not None]
        parts: list[Any] = [*adams, self.actor, *self.critics, *self.targets]
        for part in parts:
            part.prepare()
        self._key: tuple[Any, ...] | None = None
        if capture:
            fixed = [] if self.ent_coef_adam else [self.model.ent_coef_tensor]
            others = addresses([*self._target_weights, *fixed])
            self._key = (*(adam.key for adam in adams), others, self.model.tau, self.model.target_entropy)

    @torch.no_grad()
    def step(self, batch: ReplayBufferSamples, *, move_target: bool) -> Tensor:
        """Update temperature, critics, actor and, if `move_target`, the target critics, in SB3's order.

        Args:
            batch: B transitions.
            move_target: take the Polyak step.

        Returns:
            SB3's losses and the temperature, in the order of `logged`.
        """
        obs, next_obs = batch.observations.flatten(1).float(), batch.next_observations.flatten(1).float()
        discount = self.model.gamma if batch.discounts is None else batch.discounts.flatten()
        inputs = (obs, next_obs, batch.actions, batch.rewards.flatten(), (1 - batch.dones.flatten()) * discount)
        if self._key is None:
            return self._step(move_target, *inputs)
        columns = [part if part.ndim == 2 else part[:, None] for part in inputs]
        self._widths = [part.shape[1] for part in columns]
        return self._captured[move_target](self._key, torch.cat(columns, 1))

    def _packed_step(self, move_target: bool, packed: Tensor) -> Tensor:
        """`_step` of inputs side by side in one tensor, for recording."""
        obs, next_obs, acted, rewards, discount = packed.split(self._widths, 1)
        return self._step(move_target, obs, next_obs, acted, rewards.squeeze(1), discount.squeeze(1))

    def _step(
        self, move_target: bool, obs: Tensor, next_obs: Tensor, acted: Tensor, rewards: Tensor, discount: Tensor
    ) -> Tensor:
        """`step` of (B, obs), (B, obs), (B, act), (B,) and (B,) tensors; the discount is 0 where an episode ended."""
        B = len(obs)
        actions, log_probs = self.actor.sample(torch.cat([obs, next_obs]))
        alpha, *logs = self._update_temperature(log_probs[:B])

        next_q = torch.minimum(*_values(self.targets, next_obs, actions[B:])).squeeze(1)
        goal = rewards + discount * (next_q - alpha * log_probs[B:])
        errors = [q - goal[:, None] for q in _values(self.critics, obs, acted)]
        critic_loss = 0.5 * sum(error.square().mean() for error in errors)
        side_by_side(*(partial(critic.backward, error / B) for critic, error in zip(self.critics, errors, strict=True)))
        self.critic_adam.step()

        first, second = _values(self.critics, obs, actions[:B])
        actor_loss = (alpha * log_probs[:B] - torch.minimum(first, second).squeeze(1)).mean()
        least = (first <= second).float()
        by_action = slice(obs.shape[1], None)
        grads = side_by_side(
            *(
                partial(critic.backward, -share / B, weights=False, inputs=by_action)
                for critic, share in zip(self.critics, (least, 1 - least), strict=True)
            )
        )
        self.actor.backward(sum(grads), alpha / B)  # type: ignore[arg-type]
        self.actor_adam.step()
        if move_target:
            torch._foreach_lerp_(self._target_weights, self._weights, self.model.tau)
        return torch.stack([alpha, critic_loss, actor_loss, *logs])  # type: ignore[list-item]

    def _update_temperature(self, log_probs: Tensor) -> list[Tensor]:
        """Temperature before its update, and its loss -(log alpha * (log pi + target entropy)).mean() if it learns."""
        if self.ent_coef_adam is None:
            return [self.model.ent_coef_tensor.squeeze()]
        log_alpha = self.model.log_ent_coef
        assert log_alpha is not None
        excess = (log_probs + self.model.target_entropy).mean()  # type: ignore[operator]
        logs = [log_alpha.exp().squeeze(), -(log_alpha * excess).squeeze()]
        log_alpha.grad.fill_(-excess)  # type: ignore[union-attr]
        self.ent_coef_adam.step()
        return logs


class _SquashedGaussian:
    """SAC's actor: a trunk, linear heads for mean and log standard deviation, and a = tanh(mean + sd * noise)."""

    def __init__(self, trunk: Any, mean: Any, log_std: Any, kernels: ModuleType) -> None:
        """Of what `linear_layers` found in the trunk and in each head; `kernels` as of `MLP`."""
        self.parts = (trunk, mean, log_std, kernels)
        self._trunk = MLP(*trunk, activate_last=True, kernels=kernels)
        self._heads = [MLP(*head, kernels=kernels) for head in (mean, log_std)]
        self._kernels, self._captured = kernels, Captured(self._drawn)
        self._key: tuple[Any, ...] | None = None

    def prepare(self, *, backward: bool = True, capture: bool = False) -> None:
        """As `MLP.prepare`; `capture` replays `act` as a CUDA graph."""
        networks = (self._trunk, *self._heads)
        for network in networks:
            network.prepare(backward=backward)
        if capture:
            self._key = addresses(part for network in networks for pair in network.weights for part in pair)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """(B, act) actions between -1 and 1 for (B, *obs) observations, drawn as the policy draws them.

        Raises:
            ValueError: if an action is nan.
        """
        rows = self._kernels.from_numpy(obs.reshape(len(obs), -1), self._trunk.device)
        action = self._drawn(rows) if self._key is None else self._captured(self._key, rows)
        found = action if isinstance(action, np.ndarray) else action.cpu().numpy()
        if np.isnan(found).any():  # SB3's Normal refuses them too
            raise ValueError(
                "the actor's actions are nan: an observation or a reward was nan, or the networks have diverged. Find "
                "the first nan with stable_baselines3.common.vec_env.VecCheckNan, or learn at a lower rate."
            )
        return found

    def _drawn(self, rows: Any) -> Any:
        """(B, act) actions for (B, obs) observations."""
        kernels, xp = self._kernels, self._kernels.xp
        latent = self._trunk.forward(rows)
        mean, log_std = (head.forward(latent) for head in self._heads)
        noise = kernels.array(torch.empty(mean.shape, device=self._trunk.device).normal_())
        return xp.tanh(mean + xp.exp(log_std.clip(LOG_STD_MIN, LOG_STD_MAX)) * noise)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(2B, act) actions and their (2B,) log-probabilities for two batches of observations stacked to (2B, obs)."""
        self._latent = self._trunk.forward(obs)
        weights, biases = zip(*(head.weights[0] for head in self._heads), strict=True)
        mean, self._raw = linear(self._latent, torch.cat(weights), torch.cat(biases)).chunk(2, 1)  # one product
        log_std = self._raw.clamp(LOG_STD_MIN, LOG_STD_MAX)
        noise = mean.new_empty(mean.shape)
        for half in noise.chunk(2):  # two draws, as SB3 makes them
            half.normal_()
        spread = log_std.exp() * noise
        self._action, self._spread = torch.tanh(mean + spread), spread
        squash = torch.log(1 - self._action.square() + _SQUASH_EPSILON)
        log_prob = (-0.5 * noise.square() - log_std - squash).sum(1) - 0.5 * math.log(2 * math.pi) * noise.shape[1]
        return self._action, log_prob

    def backward(self, grad: Tensor, alpha: Tensor) -> None:
        """Write the gradients of the first B rows' loss to the parameters.

        With fixed noise a = tanh(mean + exp(log_std) noise) and log pi = -log_std - log(1 - a^2 + eps) + constants.

        Args:
            grad: (B, act) gradient of the critics' part of the loss by the action.
            alpha: weight of each log-probability in the loss.
        """
        B = len(grad)
        action, raw, latent = self._action[:B], self._raw[:B], self._latent[:B]
        slope = 1 - action.square()
        by_mean = slope * (grad + 2 * alpha * action / (slope + _SQUASH_EPSILON))
        inside = (raw >= LOG_STD_MIN) & (raw <= LOG_STD_MAX)
        by_log_std = (by_mean * self._spread[:B] - alpha) * inside
        for head, by_output in zip(self._heads, (by_mean, by_log_std), strict=True):
            by_weight, by_bias = head.gradients[0]
            write_gradients(by_weight, by_bias, by_output, latent)
        mean, log_std = (head.weights[0][0] for head in self._heads)
        self._trunk.backward((by_mean @ mean).addmm_(by_log_std, log_std))


def _values(critics: list[MLP], obs: Tensor, actions: Tensor) -> list[Tensor]:
    """(B, 1) value by each critic."""
    inputs = torch.cat([obs, actions], 1)
    return side_by_side(*(partial(critic.forward, inputs) for critic in critics))


def acting_parts(model: stable_baselines3.SAC) -> tuple[Any, ...] | None:
    """The actor's networks and the kernels for a step of each environment; None where SB3's own code must act.

    It does where model, policy or actor act in a way of their own, and where `covered_parts` does not cover the actor.
    """
    policy, actor = model.policy, model.actor
    kinds: tuple[Any, ...] = (type(policy), type(actor), type(actor.action_dist), type(model).predict)
    if kinds != (SACPolicy, Actor, SquashedDiagGaussianDistribution, BaseAlgorithm.predict):
        return None
    if any(name in vars(owner) for owner in (model, policy, actor) for name in ("predict", "_predict", "forward")):
        return None
    if not _reads_plainly(model.observation_space, [actor]):
        return None
    heads: list[Any] = [[actor.mu], [actor.log_std]]
    networks = [linear_layers(network) for network in (actor.latent_pi, *heads)]
    found = [network for network in networks if network is not None]
    if len(found) < len(networks):
        return None
    layers = [layer for network, _ in found for layer in network]
    return (*found, numpy_kernels if numpy_kernels.cover(layers, model.n_envs) else torch_kernels)


def _reads_plainly(space: gym.Space[Any], networks: list[Any]) -> bool:
    """Whether these read Box observations that are no images, through a flattening extractor and without hooks."""
    if not isinstance(space, gym.spaces.Box) or is_image_space(space):
        return False
    extractors = [network.features_extractor for network in networks]
    return {type(extractor) for extractor in extractors} == {FlattenExtractor} and not hooked([*networks, *extractors])


def covered_parts(model: stable_baselines3.SAC) -> tuple[Any, ...] | None:
    """The modules and optimisers that `SACUpdate` would work on; None if it would not do what SB3 does.

    It covers Box observations that are not images, plain MLPs of ReLU or tanh in float32 behind a flattening extractor,
    two critics, torch's Adam, and no gSDE.
    """
    actor, critic, target = model.actor, model.critic, model.critic_target
    if model.use_sde or not _reads_plainly(model.observation_space, [actor, critic, target]):
        return None
    kinds: tuple[type, ...] = (type(actor), type(critic), type(target), type(actor.action_dist))
    if kinds != (Actor, ContinuousCritic, ContinuousCritic, SquashedDiagGaussianDistribution) or critic.n_critics != 2:
        return None
    heads = ([actor.mu], [actor.log_std])
    networks = [linear_layers(net) for net in (actor.latent_pi, *heads, *critic.q_networks, *target.q_networks)]  # type: ignore[arg-type]
    found = [network for network in networks if network is not None]
    if len(found) < len(networks):
        return None
    params = [parameters_of(layers) for layers, _ in found]
    optimizers: list[tuple[Any, list[Any]]] = [
        (actor.optimizer, [*params[0], *params[1], *params[2]]),
        (critic.optimizer, [*params[3], *params[4]]),
    ]
    if model.ent_coef_optimizer is not None:
        optimizers.append((model.ent_coef_optimizer, [model.log_ent_coef]))
    if not all(covers_adam(*pair) for pair in optimizers):
        return None
    return (found, [optimizer for optimizer, _ in optimizers], model.policy)
