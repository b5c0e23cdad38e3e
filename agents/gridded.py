"""Policies and their successor features for continuous tasks whose state is two or three numbers.

Value iteration on a grid of states, each step's end spread over the corners of its cell; what is planned for are linear
rewards, many at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefenvs.agents.reward_models.features import Features
from prefenvs.making import make_task
from prefenvs.tasks import TASKS

Dynamics = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(B, D) states, (B, act) actions and a number of steps, in each of which the action is taken, to (B, steps, D) states
after each step, and (B, steps) bool, whether the episode had ended by then."""

TAIL = 0.01
"""Weight of what is left out at the end of a discounted sum."""


@dataclass(frozen=True)
class Chart:
    """A grid over the D coordinates of a task's state."""

    low: tuple[float, ...]
    """D least coordinates."""
    high: tuple[float, ...]
    """D greatest coordinates."""
    nodes: tuple[int, ...]
    """Nodes along each axis, both ends among them; on a periodic axis the ends are one."""
    periodic: tuple[bool, ...]
    """Whether an axis closes on itself."""
    coordinates: Callable[[Tensor], Tensor]
    """(n, obs) observations to (n, D) coordinates."""
    observations: Callable[[Tensor], Tensor]
    """(n, D) coordinates to (n, obs) observations."""

    def grid(self) -> Tensor:
        """(S, D) float64 coordinates of all nodes."""
        axes = [
            torch.linspace(low, high, count + loop, dtype=torch.float64)[:count]
            for low, high, count, loop in zip(self.low, self.high, self.nodes, self.periodic, strict=True)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    def corners(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes around each of (n, D) coordinates, (n, 2^D), and their weights in linear interpolation, (n, 2^D).

        What lies beyond an axis that is not periodic is moved to its end.
        """
        index = torch.zeros(len(coordinates), 1, dtype=torch.long)
        weight = torch.ones(len(coordinates), 1, dtype=torch.float64)
        for axis, count in enumerate(self.nodes):
            low, high, loop = self.low[axis], self.high[axis], self.periodic[axis]
            cells = count if loop else count - 1
            place = (coordinates[:, axis].double() - low) / (high - low) * cells
            place = place.remainder(cells) if loop else place.clamp(0, cells)
            cell = place.floor().clamp(max=cells - 1)
            share = (place - cell)[:, None]
            both = torch.stack([cell, cell + 1], 1).long() % count
            index = (index[:, :, None] * count + both[:, None]).flatten(1)
            weight = (weight[:, :, None] * torch.cat([1 - share, share], 1)[:, None]).flatten(1)
        return index, weight


CHARTS: dict[str, Chart] = {
    "Pendulum": Chart(
        low=(-math.pi, -8.0),
        high=(math.pi, 8.0),
        nodes=(41, 41),
        periodic=(True, False),
        coordinates=lambda obs: torch.stack([torch.atan2(obs[:, 1], obs[:, 0]), obs[:, 2]], 1),
        observations=lambda x: torch.stack([x[:, 0].cos(), x[:, 0].sin(), x[:, 1]], 1),
    ),
}
"""Charts by task: Pendulum's angle in rad and speed in rad/s."""


def task_dynamics(task: str) -> Dynamics:
    """The dynamics of a classic control task, whose `state` is its coordinates, by restoring it to states and stepping.

    Args:
        task: name of a task with deterministic transitions.
    """

    def play(states: np.ndarray, actions: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        base = make_task(TASKS[task])
        base.reset(seed=0)
        held = base.get_state()
        after, ended = np.repeat(states[:, None], steps, 1), np.zeros((len(states), steps), bool)
        for i, (state, action) in enumerate(zip(states, actions, strict=True)):
            base.set_state({**held, "state": state})
            for t in range(steps):
                ended[i, t:] = base.step(action)[2]
                after[i, t:] = base.state
                if ended[i, t]:
                    break
        base.close()
        return after, ended

    return play


class GridPlanner:
    """Plans for linear rewards on a grid; knows dynamics and features, no reward."""

    def __init__(
        self,
        chart: Chart,
        dynamics: Dynamics,
        actions: np.ndarray,
        features: Features,
        gamma: float,
        hold: int = 4,
    ) -> None:
        """Step from every node with every action.

        Args:
            chart: where the nodes are.
            dynamics: of the task.
            actions: (A, act) that policies choose from.
            features: d features of (observation, action).
            gamma: discount a step.
            hold: steps that policies stay with an action. Interpolation blurs each time states are looked up, and slow
                motion, which moves by less than a cell, most: holding on blurs less and takes fewer sweeps.
        """
        self.chart, self.gamma, self.actions = chart, gamma, np.asarray(actions, np.float32)
        nodes = chart.grid()
        taken = np.tile(self.actions, (len(nodes), 1))  # (S * A, act)
        states = nodes.repeat_interleave(len(actions), 0)
        after, ended = dynamics(states.numpy(), taken, hold)
        visited = torch.cat([states[:, None], torch.as_tensor(after[:, :-1])], 1).transpose(0, 1)  # (hold, S * A, D)
        alive = ~torch.as_tensor(np.pad(ended, ((0, 0), (1, 0))).T)  # (hold + 1, S * A), before each step and after all
        collected = torch.zeros(len(states), len(features), dtype=torch.float64)
        for t in range(hold):
            now = features(chart.observations(visited[t]), torch.as_tensor(taken))
            collected += gamma**t * now * alive[t, :, None]
        self.features = collected.float()  # (S * A, d)
        index, weight = chart.corners(torch.as_tensor(after[:, -1]))
        self.index = index  # (S * A, 2^D)
        self.weight = (gamma**hold * weight * alive[-1][:, None]).float()  # discount included
        self.sweeps = math.ceil(math.log(TAIL) / (hold * math.log(gamma)))

    def action_values(self, weights: Tensor) -> Tensor:
        """(S, A, R) optimal action values for (R, d) reward vectors, on the CPU whatever these are on."""
        rewards = self.features @ weights.cpu().float().T  # (S * A, R)
        values = torch.zeros(len(rewards) // len(self.actions), len(weights))
        for _ in range(self.sweeps):
            q = rewards + F.embedding_bag(self.index, values, per_sample_weights=self.weight, mode="sum")
            q = q.reshape(len(values), len(self.actions), -1)
            values = q.amax(1)
        return q

    def successor_features(self, choice: Tensor) -> Tensor:
        """(R, S, d) discounted sums of features of R policies, given as (R, S) indices of actions."""
        policies, states = choice.shape
        taken = (torch.arange(states) * len(self.actions) + choice).flatten()  # (R * S,)
        offset = torch.arange(policies).repeat_interleave(states)[:, None] * states
        index, weight, now = self.index[taken] + offset, self.weight[taken], self.features[taken]
        psi = now
        for _ in range(self.sweeps):
            psi = now + F.embedding_bag(index, psi, per_sample_weights=weight, mode="sum")
        return psi.reshape(policies, states, -1)


class GridPolicies(nn.Module):
    """Successor features of the policies that a planner finds for reward vectors, for `FeatureRegret`."""

    def __init__(self, planner: GridPlanner, weights: Any) -> None:
        """Plan for (R, d) reward vectors."""
        super().__init__()
        self._planner = planner
        self.register_buffer("table", torch.zeros(0, len(planner.chart.grid()), planner.features.shape[1]))
        self.table: Tensor  # (P, S, d)
        self.add(torch.as_tensor(weights))

    @property
    def gamma(self) -> float:
        """Discount a step."""
        return self._planner.gamma

    @torch.no_grad()
    def add(self, weights: Tensor) -> None:
        """Take up the policies that are best for (R, d) reward vectors."""
        choice = self._planner.action_values(weights).argmax(1).T
        self.table = torch.cat([self.table, self._planner.successor_features(choice).to(self.table.device)])

    def forward(self, obs: Tensor) -> Tensor:
        """(n, obs) observations to (P, n, d) successor features, interpolated."""
        chart = self._planner.chart
        index, weight = chart.corners(chart.coordinates(obs.cpu()))
        held = self.table[:, index.to(self.table.device)]  # (P, n, 2^D, d)
        return (held * weight.to(held)[..., None]).sum(2)


class GridPolicy:
    """Acts best for one reward vector; `predict` is that of SB3's models, so it can be scored like any agent."""

    def __init__(self, planner: GridPlanner, weights: Any) -> None:
        """Plan for (d,) weights."""
        self._planner = planner
        self._values = planner.action_values(torch.as_tensor(weights)[None])[:, :, 0]  # (S, A)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """(B, obs) observations to (B, act) actions of greatest value, which is interpolated."""
        chart = self._planner.chart
        index, weight = chart.corners(chart.coordinates(torch.as_tensor(observations)))
        values = (self._values[index] * weight.float()[..., None]).sum(1)
        return self._planner.actions[values.argmax(1).numpy()]

    def predict(self, observation: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
        """One action."""
        return self.act(observation[None])[0], None


def played_by(
    policies: Sequence[GridPolicy], shares: np.ndarray, space: Any, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """What E streams do of which each policy plays as many, (E, obs) to (E, act).

    Args:
        policies: the first plays the first streams, and so on; E is a multiple of their number.
        shares: (E,) probabilities that a stream's action is uniformly random in place of its policy's.
        space: of actions, a Box.
        rng: of those actions.
    """

    def act(observations: np.ndarray) -> np.ndarray:
        parts = zip(policies, np.split(observations, len(policies)), strict=True)
        actions = np.concatenate([policy.act(part) for policy, part in parts])
        random = rng.random(len(shares)) < shares
        actions[random] = rng.uniform(space.low, space.high, (random.sum(), *space.shape))
        return actions

    return act
