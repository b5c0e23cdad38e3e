"""Values of a fixed policy where poor, middling and good behaviour goes, by playing the policy on from there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

from prefenvs.oracles.value_nets import Layers
from prefenvs.tasks import TASKS

Act = Callable[[np.ndarray], np.ndarray]
"""A deterministic policy, (B, obs) to (B, act)."""

STRAY = 50
"""Longest stretch of other behaviour, in steps; each lasts uniformly many from 1."""
LONG_STRAY = 200
"""Longest stretch where they may be long; each lasts log-uniformly many steps from 1, so most are short still."""
RANDOM_SHARES = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Share of uniformly random actions in a stretch of other behaviour, each as likely."""
LAST_STEPS = 50
"""A state followed for fewer steps by the policy gets no label, unless the episode ended: too much of it is a guess."""
JUMP = 0.05
"""Errors of values above this many standard deviations weigh linearly. Where a small push decides the policy's fate
values jump, no small network follows, and squares of those errors would spoil the rest: with them the median error of
regret over Pendulum's segments was twice as large."""


@dataclass(frozen=True)
class Experience:
    """Streams that take turns between other behaviour and the policy whose values are wanted."""

    observations: np.ndarray
    """(time, streams, obs) float32."""
    actions: np.ndarray
    """(time, streams, act) float32, as the environment took them."""
    rewards: np.ndarray
    """(time, streams) float64 true reward."""
    next_observations: np.ndarray
    """(time, streams, obs) float32."""
    terminated: np.ndarray
    """(time, streams) bool: the episode ended there. Being cut by the step limit is no end."""
    cut: np.ndarray
    """(time, streams) bool: the stream begins anew after this step, whether or not the episode ended."""
    following: np.ndarray
    """(time, streams) bool: the policy's own action."""


def stray_and_follow(
    task: str,
    policy: Act,
    others: Sequence[Act],
    *,
    steps: int,
    streams: int,
    follow: int,
    seed: int,
    long_strays: bool = False,
) -> Experience:
    """Play stretches of other behaviour, after each of which the policy goes on from where that led.

    Other behaviour is one of `others`, some of whose actions are replaced by uniformly random ones. A third of the
    stretches of the policy end in a new episode; half of the episodes begin with the policy.

    Args:
        task: name of a task with continuous actions.
        policy: whose values are wanted.
        others: weak to strong policies.
        steps: of each stream.
        streams: played at a time.
        follow: steps of each stretch of the policy.
        seed: of resets and actions.
        long_strays: let other behaviour last up to `LONG_STRAY` steps instead of `STRAY`.
    """
    rng = np.random.default_rng(seed)
    envs = _environments(task, streams)
    space: Any = envs.single_action_space
    shares, following = np.zeros(streams), np.ones(streams, bool)
    who, left = np.zeros(streams, int), np.zeros(streams, int)

    def lasts(count: int) -> np.ndarray:
        if long_strays:
            return np.exp(rng.uniform(0, np.log(LONG_STRAY + 1), count)).astype(int)
        return rng.integers(1, STRAY + 1, count)

    def turn(rows: np.ndarray, to_policy: np.ndarray) -> None:
        following[rows] = to_policy
        who[rows], shares[rows] = rng.integers(len(others), size=len(rows)), rng.choice(RANDOM_SHARES, len(rows))
        left[rows] = np.where(to_policy, follow, lasts(len(rows)))

    turn(np.arange(streams), rng.random(streams) < 0.5)
    observations = envs.reset(seed=seed)[0].astype(np.float32)
    record: list[tuple[np.ndarray, ...]] = []
    for _ in range(steps):
        actions = policy(observations).astype(np.float32)
        for i, other in enumerate(others):
            rows = np.flatnonzero(~following & (who == i))
            if len(rows):
                actions[rows] = other(observations[rows])
        random = ~following & (rng.random(streams) < shares)
        actions[random] = rng.uniform(space.low, space.high, (random.sum(), *space.shape))
        after, rewards, terminated, truncated, _ = envs.step(actions)
        left -= 1
        over = terminated | truncated
        cut = over | ((left == 0) & following & (rng.random(streams) < 1 / 3))
        after = after.astype(np.float32)
        record.append((observations, actions, rewards, after, terminated, cut, following.copy()))
        ends = np.flatnonzero(cut | (left == 0))
        turn(ends, np.where(cut[ends], rng.random(len(ends)) < 0.5, ~following[ends]))
        observations = after
        if cut.any():
            begun = envs.reset(options={"reset_mask": cut})[0].astype(np.float32)
            observations = np.where(cut[:, None], begun, after)
    envs.close()
    return Experience(*(np.stack(column) for column in zip(*record, strict=True)))


def _environments(task: str, count: int) -> Any:
    """The true reward's environments side by side; who ends is begun anew by hand."""
    settings: dict[str, Any] = {"evaluation": True}
    mode = AutoresetMode.DISABLED
    if TASKS[task].batched:
        return gym.make_vec(TASKS[task].id, num_envs=count, autoreset_mode=mode, threads=1, **settings)
    return gym.make_vec(TASKS[task].id, count, "sync", vector_kwargs={"autoreset_mode": mode}, **settings)


@dataclass(frozen=True)
class FollowedReturns:
    """What following the policy gave from each of M observations: value = gains + weight * value of `ends`."""

    observations: np.ndarray
    """(M, obs)."""
    gains: np.ndarray
    """(M,) discounted sum of the rewards that were seen."""
    weight: np.ndarray
    """(M,) discount of the rest: gamma ** steps, and 0 where the episode ended."""
    ends: np.ndarray
    """(M, obs) observation after the last step."""
    since: np.ndarray
    """(M,) steps for which the policy had been followed before."""


def followed_returns(data: Experience, gamma: float, *, last_steps: int = LAST_STEPS) -> FollowedReturns:
    """Labels of all states from which the policy was followed for `last_steps` or more, or to the episode's end."""
    time = len(data.rewards)
    gains, weight = np.empty_like(data.rewards), np.empty_like(data.rewards)
    end = np.empty(data.rewards.shape, int)
    goes_on = ~data.cut[:-1] & data.following[1:]
    since = np.zeros(data.rewards.shape, int)
    for t in range(1, time):
        since[t] = np.where(goes_on[t - 1] & data.following[t - 1], since[t - 1] + 1, 0)
    gains[-1], weight[-1], end[-1] = data.rewards[-1], gamma * ~data.terminated[-1], time - 1
    for t in reversed(range(time - 1)):
        on = goes_on[t]
        gains[t] = data.rewards[t] + gamma * np.where(on, gains[t + 1], 0.0)
        weight[t] = gamma * np.where(on, weight[t + 1], ~data.terminated[t])
        end[t] = np.where(on, end[t + 1], t)
    row, stream = np.nonzero(data.following & (weight <= gamma**last_steps * (1 + 1e-9)))
    return FollowedReturns(
        data.observations[row, stream],
        gains[row, stream],
        weight[row, stream],
        data.next_observations[end[row, stream], stream],
        since[row, stream],
    )


def faded(labels: FollowedReturns, fade: int, rng: np.random.Generator) -> FollowedReturns:
    """Each label kept with probability fade / (fade + since): fewer of the policy's own gait, where all is alike."""
    kept = rng.random(len(labels.since)) < fade / (fade + labels.since)
    return FollowedReturns(*(column[kept] for column in vars(labels).values()))


def fit_value(
    data: FollowedReturns, *, hidden: tuple[int, ...], updates: int, seed: int, batch: int = 256, tau: float = 0.01
) -> Layers:
    """V of the policy by regression on gains + weight * V'(ends), where V' is the running mean of V's weights.

    V' is what is returned: the mean of many updates is less noisy than the last. Where `weight` is small this is plain
    regression on Monte Carlo returns, and errors of V' hardly matter; no entropy is added.

    Args:
        data: labels.
        hidden: width of each hidden layer.
        updates: gradient steps.
        seed: of initial weights and batches.
        batch: labels an update.
        tau: share of the new weights in the running mean.

    Returns:
        The network from observations to values, with all scaling folded into its layers.
    """
    mean, sd = _scales(data.observations)
    # Roughly, what comes after the last step pays as what came before it.
    rough = data.gains / np.maximum(1 - data.weight, 1e-3)
    centre, unit = float(rough.mean()), float(rough.std()) + 1e-6
    x, x_end = (torch.as_tensor((o - mean) / sd, dtype=torch.float32) for o in (data.observations, data.ends))
    # In scaled units: target = (gains + weight * (centre + unit * v') - centre) / unit.
    weight = torch.as_tensor(data.weight, dtype=torch.float32)
    gains = torch.as_tensor((data.gains + data.weight * centre - centre) / unit, dtype=torch.float32)
    network, slow = _network(x.shape[1], hidden, seed), _network(x.shape[1], hidden, seed)

    def loss(index: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = gains[index] + weight[index] * slow(x_end[index])[:, 0]
        return nn.functional.huber_loss(network(x[index])[:, 0], wanted, delta=JUMP)

    _descend(loss, network, slow, len(x), updates=updates, batch=batch, tau=tau, seed=seed)
    return _folded(slow, mean, sd, centre, unit)


def _descend(
    loss: Callable[[Tensor], Tensor],
    network: nn.Module,
    slow: nn.Module,
    count: int,
    *,
    updates: int,
    batch: int,
    tau: float,
    seed: int,
    lr: float = 1e-3,
) -> None:
    """Adam on batches of indices below `count`, at a rate that falls linearly; `slow` becomes the running mean."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=updates)
    online, means = ([p.data for p in module.parameters()] for module in (network, slow))
    for _ in range(updates):
        optimizer.zero_grad(set_to_none=True)
        loss(torch.randint(count, (batch,), generator=rng)).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, online, tau)


def _scales(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return inputs.mean(0), inputs.std(0) + 1e-6


def _network(width: int, hidden: tuple[int, ...], seed: int) -> nn.Sequential:
    sizes = (width, *hidden)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def linear_layers(module: nn.Module) -> Layers:
    """Weight (in, out) and bias of each linear layer of a module, in order."""
    return tuple(
        (layer.weight.detach().cpu().numpy().T.copy(order="C"), layer.bias.detach().cpu().numpy().copy())
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    )


def fold_input_scales(layers: Layers, mean: np.ndarray, sd: np.ndarray) -> Layers:
    """The function of inputs x that `layers` are of (x - mean) / sd."""
    weight, bias = layers[0]
    first = ((weight / sd[:, None]).astype(np.float32), (bias - (mean / sd) @ weight).astype(np.float32))
    return (first, *layers[1:])


def _folded(network: nn.Module, mean: np.ndarray, sd: np.ndarray, centre: float, unit: float) -> Layers:
    """The same function of unscaled inputs, in units of return."""
    layers = fold_input_scales(linear_layers(network), mean, sd)
    weight, bias = layers[-1]
    return (*layers[:-1], ((weight * unit).astype(np.float32), (bias * unit + centre).astype(np.float32)))
