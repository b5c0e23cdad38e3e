"""Trains a policy on the true reward, so that regret can be measured against its values."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from prefenvs.agents.evaluation import evaluate
from prefenvs.agents.expert_policies import LEARNERS, KeepBest
from prefenvs.agents.policy_evaluation import (
    STRAY,
    faded,
    fit_value,
    followed_returns,
    stray_and_follow,
)
from prefenvs.agents.regret_check import regret_fit
from prefenvs.error import unknown_name
from prefenvs.oracles.value_nets import Layers, NetworkValues
from prefenvs.runs import versions
from prefenvs.tasks import TASKS

CHECKS = 10
"""How often a policy is checked in training."""
CHECK_GAP = 1000
"""Least number of steps between two checks."""
DISTURBANCES = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Noise on the weights of a policy, as shares of their standard deviation, that makes weaker ones of it."""
STREAMS = 64
"""Streams of experience that the values are fitted to, played at a time."""


@dataclass(frozen=True)
class ExpertSettings:
    """How the expert of a task is trained."""

    steps: int
    """Environment steps."""
    gamma: float = 0.99
    """Discount of the training."""
    num_envs: int = 4
    hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer of actor and critics."""
    algorithm: str = "SAC"
    """Name in `LEARNERS`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the algorithm."""
    value_gamma: float | None = None
    """Discount of the values; by default that of the training."""
    value_hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer of the network of values."""
    value_steps: int = 1_200_000
    """Environment steps from which the policy's values are learned."""
    follow: int = 150
    """Steps for which the policy is followed from where other behaviour led."""
    long_strays: bool = False
    """Whether other behaviour lasts up to 200 steps, most of it few, instead of up to 50."""
    fade: int | None = None
    """Labels after so many steps of following count half, after twice as many a third; None: all count alike."""
    value_updates: int = 20_000
    """Gradient steps of that network."""
    value_batch: int = 256
    """Labels in each of them."""


# Of robots that fall. From 3M steps Hopper's values rank the regret of 300 segments of all behaviour at 0.93; with two
# layers of 192 it was 0.84, and 0.72 with the settings of other tasks. Segments of the expert with some random actions
# and without a fall are ranked at 0.65 (168): their regret is 1 to 3 of values near 300.
_FALLS: dict[str, Any] = {
    "gamma": 0.995,
    "num_envs": 16,
    "hidden": (64, 64),
    "algorithm": "PPO",
    "arguments": {
        "learning_rate": 6e-4,
        "n_steps": 128,
        "batch_size": 128,
        "policy_kwargs": {"log_std_init": -0.5},
    },
    "value_gamma": 0.99,
    "value_hidden": (160, 160, 160),
    "value_steps": 4_000_000,
    "long_strays": True,
    "fade": 10,
    "value_updates": 40_000,
    "value_batch": 512,
}

_SMALL: dict[str, Any] = {"value_steps": 300_000, "follow": 100}

EXPERTS: dict[str, ExpertSettings] = {
    "Pendulum": ExpertSettings(
        10_000,
        num_envs=1,
        hidden=(64, 64),
        arguments={"learning_rate": 1e-3, "learning_starts": 500, "gradient_steps": 1},
        **_SMALL,
    ),
    # As rl-baselines3-zoo tunes it: noise that lasts (gSDE) swings the car up before the cost of force teaches it to
    # stand still. Without the clip of gSDE's mean the mode of the policy is tanh of a plain network.
    "MountainCarContinuous": ExpertSettings(
        50_000,
        gamma=0.999,
        num_envs=1,
        hidden=(64, 64),
        **_SMALL,
        arguments={
            "learning_rate": 3e-4,
            "batch_size": 512,
            "ent_coef": 0.1,
            "train_freq": 32,
            "gradient_steps": 16,
            "tau": 0.01,
            "learning_starts": 0,
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.67, "clip_mean": 0.0},
        },
    ),
    # A long random start keeps the cheetah off the local optimum of sliding on its back.
    "HalfCheetah": ExpertSettings(
        100_000,
        arguments={"learning_rate": 1e-3, "learning_starts": 4000, "ent_coef": "auto_0.1", "gradient_steps": 2},
        value_steps=2_000_000,
    ),
    # A pilot with gamma 0.99 and rate 4e-4 sprinted and fell: 644 points at 348k steps. This had 3268 at 360k.
    "Hopper": ExpertSettings(600_000, **_FALLS),
    # Pilots fitted values of discount 0.99, 0.97 and 0.95 to the same 3M steps: they ranked the regret of 300 segments
    # of all behaviour at 0.58, 0.70 and 0.77.
    "Walker2d": ExpertSettings(
        1_000_000,
        **_FALLS | {"value_gamma": 0.95, "value_hidden": (176, 176, 176), "value_steps": 6_000_000, "follow": 70},
    ),
}
"""Settings by task. `EXPERTS["Mine"] = ExpertSettings(...)` adds one."""

OTHERS = ExpertSettings(
    100_000, arguments={"learning_rate": 7e-4, "learning_starts": 1000, "ent_coef": "auto_0.1", "gradient_steps": 2}
)
"""Settings of tasks that have none in `EXPERTS`."""


def expert_settings(task: str, steps: int | None = None) -> ExpertSettings:
    """The settings of a task, with another number of steps if one is given; fewer shorten the values' share alike."""
    settings = EXPERTS.get(task, OTHERS)
    if steps is None:
        return settings
    share = min(steps / settings.steps, 1.0)
    value_steps, updates = (max(int(share * n), 1) for n in (settings.value_steps, settings.value_updates))
    return replace(settings, steps=steps, value_steps=value_steps, value_updates=updates)


def train_policy(
    task: str, settings: ExpertSettings, seed: int = 0, *, progress: bool = False
) -> tuple[NetworkValues, list[Layers]]:
    """Train on the true reward and keep the policy that did best at the checks.

    Args:
        task: name of a task with continuous actions.
        settings: how.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        The best policy, without values yet, and the policy at each check, for weaker behaviour.

    Raises:
        ValueError: if the task's actions are discrete.
    """
    space = _action_space(task)
    arguments = copy.deepcopy(dict(settings.arguments))  # SB3 writes into policy_kwargs
    model = LEARNERS[settings.algorithm](
        TASKS[task].id,
        settings.num_envs,
        hidden=settings.hidden,
        gamma=settings.gamma,
        seed=seed,
        steps=settings.steps,
        **arguments,
    )
    keeper = KeepBest(TASKS[task].id, max(settings.steps // CHECKS, CHECK_GAP), space)
    model.learn(settings.steps, callback=keeper, progress_bar=progress)
    keeper.check()
    model.get_env().close()  # type: ignore[union-attr]
    return keeper.best(), keeper.policies


def _action_space(task: str) -> gym.spaces.Box:
    env = gym.make(TASKS[task].id, evaluation=True)
    env.close()
    if not isinstance(env.action_space, gym.spaces.Box):
        raise ValueError(f"experts act in continuous spaces only, which {task} has not.")
    return env.action_space


def evaluate_policy(
    policy: NetworkValues, others: Sequence[Layers], task: str, settings: ExpertSettings, seed: int = 0
) -> NetworkValues:
    """The policy with its plain values, without the entropy that SAC's own critics count.

    Learned by playing the policy on from states that the policies of the whole training visit, with up to all of their
    actions random: these are the steps whose regret will be asked about, a beginner's and an expert's.

    Args:
        policy: whose values are wanted.
        others: weak to strong policies.
        task: their task.
        settings: as they were trained.
        seed: of everything random.

    Returns:
        The policy and its values, with how well they tell the regret of held-out segments.
    """
    gamma = settings.gamma if settings.value_gamma is None else settings.value_gamma
    behaviours = [replace(policy, policy=layers).act for layers in (policy.policy, *others)]
    data = stray_and_follow(
        task,
        policy.act,
        behaviours,
        steps=max(settings.value_steps // STREAMS, settings.follow + STRAY),
        streams=STREAMS,
        follow=settings.follow,
        seed=seed + 1,
        long_strays=settings.long_strays,
    )
    labels = followed_returns(data, gamma)
    if settings.fade is not None:
        labels = faded(labels, settings.fade, np.random.default_rng(seed))
    value = fit_value(
        labels,
        hidden=settings.value_hidden,
        updates=settings.value_updates,
        seed=seed,
        batch=settings.value_batch,
    )
    values = replace(policy, value=value, facts={"task": task, "gamma": gamma})
    return replace(values, facts={**values.facts, "fit": regret_fit(task, values, behaviours, seed=seed + 2)})


def weaker_policies(policy: NetworkValues, seed: int) -> list[Layers]:
    """Policies like this one with more and more noise on their weights, where those of its training are not at hand."""
    rng = np.random.default_rng(seed)
    return [
        tuple(((w + noise * w.std() * rng.normal(size=w.shape)).astype(np.float32), b) for w, b in policy.policy)
        for noise in DISTURBANCES
    ]


def train_expert(
    task: str,
    *,
    steps: int | None = None,
    seed: int = 0,
    policy: NetworkValues | None = None,
    command: str = "",
    progress: bool = False,
) -> NetworkValues:
    """Train a policy on the true reward, score it, and fit its values.

    Args:
        task: name of a task with continuous actions.
        steps: environment steps; by default those of its settings.
        seed: of everything random.
        policy: train none, and fit values of this one.
        command: kept in the file, so that a reader can repeat it.
        progress: show a progress bar.

    Raises:
        ValueError: if the task is not known, its actions are discrete or the policy is another task's.
    """
    check_task(task, policy)
    settings = expert_settings(task, steps)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if policy is None:
        policy, others = train_policy(task, settings, seed, progress=progress)
        made: dict[str, Any] = {}
    else:
        others, made = weaker_policies(policy, seed), {"policy": dict(policy.facts)}
    values = described(evaluate_policy(policy, others, task, settings, seed), settings, seed, command)
    return replace(values, facts={**values.facts, **made})


def check_task(task: str, policy: NetworkValues | None = None) -> None:
    """Refuse a task that an expert, or this policy, cannot act in.

    Raises:
        ValueError: if the task is not known, its actions are discrete or the policy is another task's.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if policy is not None and policy.facts.get("task", task) != task:
        raise ValueError(f"the policy acts in {policy.facts['task']}, not in {task}. Give a file of {task}.")
    _action_space(task)


def described(values: NetworkValues, settings: ExpertSettings, seed: int, command: str) -> NetworkValues:
    """The values with the score of their policy and everything needed to repeat them."""
    spec = TASKS[values.facts["task"]]
    score = evaluate(values, spec.id, 20)
    reference = spec.reference_score
    facts = {
        **values.facts,
        "steps": settings.steps,
        "seed": seed,
        "settings": json.loads(json.dumps(asdict(settings))),
        "score": score.mean,
        "score_sd": score.sd,
        "episodes": score.episodes,
        "reference_score": None if reference is None else reference.mean,
        "reference_source": None if reference is None else reference.source,
        "command": command,
        "versions": versions(),
    }
    return replace(values, facts=facts)
