"""How well values tell the regret of segments, against playing the policy on from restored states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prefenvs.agents.policy_evaluation import RANDOM_SHARES, STRAY, Act
from prefenvs.making import make_task
from prefenvs.metrics.correlation import pearson, spearman
from prefenvs.oracles.regret import DeterministicRegret
from prefenvs.oracles.value_nets import NetworkValues
from prefenvs.segments import JudgedSegments
from prefenvs.tasks import TASKS
from prefenvs.tasks.task import State

TAIL = 0.01
"""Weight of what is left out at the end of a return that is played out."""


def regret_fit(
    task: str, values: NetworkValues, others: Sequence[Act], *, count: int = 60, steps: int = 25, seed: int = 0
) -> dict[str, float]:
    """Compare regret by the networks with regret by playing on, over segments of poor, middling and good behaviour.

    Minus regret is sum_t gamma^t r_t + gamma^n (1 - terminated) V(s_n) - V(s_0), with V of the networks, or V the
    policy's return from the restored state.

    Args:
        task: name of a task with deterministic transitions.
        values: to check.
        others: weak to strong policies, as the values were fitted with.
        count: segments.
        steps: of each.
        seed: of segments.

    Returns:
        By name: `rank_correlation` (Spearman's) and `correlation` of the two; `rms`, their difference, and `sd` of
        regret by playing on, both in units of return; number and length of the segments.
    """
    segments, played = played_segments(task, values, others, count=count, steps=steps, seed=seed)
    found = DeterministicRegret(values).utility(segments)[:, 0]
    return {
        "rank_correlation": float(spearman(played, found)),
        "correlation": float(pearson(played, found)),
        "rms": float(np.sqrt(np.square(found - played).mean())),
        "sd": float(played.std()),
        "segments": count,
        "segment_steps": steps,
    }


def played_segments(
    task: str, values: NetworkValues, others: Sequence[Act], *, count: int, steps: int, seed: int
) -> tuple[JudgedSegments, np.ndarray]:
    """Segments, and (n,) minus the regret of each by playing the policy on from its first and its last state."""
    rng, base = np.random.default_rng(seed), make_task(TASKS[task])
    rows, begins, ends = [], [], []
    for i in range(count):
        other, share = others[i % len(others)], float(rng.choice(RANDOM_SHARES))
        observation, before = base.reset(seed=int(rng.integers(2**31)))[0], int(rng.integers(4 * STRAY))
        for _ in range(before):
            observation, _, terminated, _, _ = base.step(_action(base, observation, other, share, rng))
            if terminated:
                observation = base.reset()[0]
        begins.append(base.get_state())
        rows.append(_segment(base, observation, other, share, steps, rng))
        ends.append(base.get_state())
    base.close()
    columns: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    segments = JudgedSegments(**columns, factors={}, task=task)
    first, last = (
        returns_from(task, states, observations, values)
        for states, observations in zip((begins, ends), segments.ends(), strict=True)
    )
    collected = segments.rewards @ values.gamma ** np.arange(steps)
    return segments, collected + values.gamma ** segments.mask.sum(1) * ~segments.terminated * last - first


def returns_from(task: str, states: Sequence[State], observations: Any, values: NetworkValues) -> np.ndarray:
    """(n,) the policy's discounted returns from states that show (n, obs) observations, by playing on from them."""
    tasks = [make_task(TASKS[task]) for _ in states]
    for base, state in zip(tasks, states, strict=True):
        base.reset(seed=0)
        base.set_state(state)
    observations, total, alive = np.array(observations, np.float32), np.zeros(len(tasks)), np.arange(len(tasks))
    for t in range(math.ceil(math.log(TAIL) / math.log(values.gamma))):
        actions = values.act(observations[alive])
        taken = [tasks[i].step(action) for i, action in zip(alive, actions, strict=True)]
        observations[alive] = np.array([step[0] for step in taken])
        total[alive] += values.gamma**t * np.array([step[1] for step in taken], np.float64)
        alive = alive[[not step[2] for step in taken]]
        if not len(alive):
            break
    for base in tasks:
        base.close()
    return total


def _action(base: Any, observation: np.ndarray, act: Act, share: float, rng: np.random.Generator) -> np.ndarray:
    space = base.action_space
    if rng.random() < share:
        return rng.uniform(space.low, space.high).astype(np.float32)
    return act(observation[None].astype(np.float32))[0].astype(np.float32)


def _segment(
    base: Any, observation: np.ndarray, act: Act, share: float, steps: int, rng: np.random.Generator
) -> dict[str, Any]:
    """One segment padded to `steps`; the task is left in its last state."""
    space = base.action_space
    observations = np.zeros((steps + 1, *observation.shape), np.float32)
    actions, rewards = np.zeros((steps, *space.shape), np.float32), np.zeros(steps)
    mask, terminated = np.zeros(steps, bool), False
    observations[0] = observation
    for t in range(steps):
        actions[t] = _action(base, observation, act, share, rng)
        observation, rewards[t], terminated, _, _ = base.step(actions[t])
        observations[t + 1], mask[t] = observation, True
        if terminated:
            break
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "mask": mask,
        "terminated": np.bool_(terminated),
    }
