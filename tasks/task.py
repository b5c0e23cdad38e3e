"""What a task is: a Gymnasium environment with a true reward, named factors of it, and a state that can be restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

State = dict[str, np.ndarray]
"""A snapshot of a task: names to arrays, so that it can be stored without pickle."""


@dataclass(frozen=True)
class Score:
    """A mean true return an episode, and where the figure comes from."""

    mean: float
    """Mean true return an episode, in units of reward."""
    sd: float | None
    """Standard deviation between episodes, or None where the source gives none."""
    source: str
    """The command that measured it here, or the publication it is quoted from."""


@dataclass(frozen=True)
class TaskSpec:
    """One line of a family's registry: everything known about a task without importing its simulator."""

    name: str
    """CamelCase; the environment id is `prefenvs/<name>-v<version>`."""
    entry_point: str
    """`module:Class`, called with `kwargs` and `render_mode`."""
    factors: tuple[str, ...]
    """Names of the reward factors, the most important first."""
    horizon: int
    """Steps after which an episode is truncated."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class, and their values unless `gym.make` is given others under the same names."""
    has_success: bool = False
    """Whether the task says when it is solved."""
    deterministic: bool = True
    """Whether the transitions (not the reset) are deterministic."""
    time_limit: bool = True
    """Whether Gymnasium's TimeLimit cuts at the horizon; if not, the task itself terminates there at the latest."""
    random_score: Score | None = None
    """Uniformly random actions: 100 episodes, or exact where the task can be solved."""
    reference_score: Score | None = None
    """A trained agent at a stated budget, or the exact optimum where the task can be solved."""
    harmless_info: tuple[str, ...] = ()
    """Keys of `info` that say nothing of the reward and may reach a learner."""
    extra: str | None = None
    """The optional dependency group that brings the simulator."""
    batched: str | None = None
    """`module:Class` of a BatchedTask, where many simulations of the task can step as one."""
    exact_values: bool = False
    """Whether the task's `optimal_values()` gives exact v(obs) and q(obs, act), for oracles of regret."""
    version: int = 0

    @property
    def id(self) -> str:
        """The id to give to `gym.make`."""
        return f"prefenvs/{self.name}-v{self.version}"

    def normalised(self, score: float) -> float:
        """A mean true return, as a share of the way from the random score, 0, to the reference score, 1.

        Raises:
            ValueError: if the task lacks one of the two.
        """
        if self.random_score is None or self.reference_score is None:
            raise ValueError(f"{self.name} has no random or no reference score to measure {score} by.")
        return float((score - self.random_score.mean) / (self.reference_score.mean - self.random_score.mean))


@runtime_checkable
class Task(Protocol):
    """A `gym.Env` (the step limit is not its business) that also answers these four questions.

    Factors combine to the true reward: `combine_factors(reward_factors())` equals the reward of the same step.
    """

    def reward_factors(self) -> dict[str, float]:
        """Factors of the last step's true reward by name, the most important first."""

    def combine_factors(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The true reward of factors of any common shape, in units of reward."""

    def success(self) -> bool | None:
        """Whether the task is solved in the present state; None where the task has no such notion."""

    def get_state(self) -> State:
        """Everything that the next steps depend on: simulator, Python state and generator. Restores bit-equal."""

    def set_state(self, state: State) -> None:
        """Continue from a state that `get_state` gave, on this or another instance of the task."""


def generator_to_array(rng: np.random.Generator) -> np.ndarray:
    """The state of a PCG64 generator as (6,) uint64, so that it can be stored beside other arrays."""
    state: Any = rng.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise TypeError(f"expected a PCG64 generator, as Gymnasium makes them, got {state['bit_generator']}.")
    words = []
    for number in (state["state"]["state"], state["state"]["inc"]):
        words += [number & (2**64 - 1), number >> 64]
    return np.array([*words, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def generator_from_array(array: np.ndarray) -> np.random.Generator:
    """The generator that `generator_to_array` described."""
    low, high, inc_low, inc_high, has_uint32, uinteger = (int(word) for word in array)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)


Rows = np.ndarray
"""(n,) int64 indices of simulations in a batch, in rising order."""


@dataclass(frozen=True)
class BatchedStep:
    """What a step of some of the simulations in a batch gave; rows of the others hold nothing of meaning."""

    rewards: np.ndarray
    """(N,) float64 true reward."""
    factors: np.ndarray
    """(N, d) float64 reward factors, in the order of the task's."""
    terminated: np.ndarray
    """(N,) bool."""
    success: np.ndarray | None = None
    """(N,) bool, or None where the task has no such notion."""


class BatchedTask(Protocol):
    """N simulations of one task that step together: the numbers of N Tasks, as arrays.

    Made of a single Task, `Batched(task, num_envs)`. It has no step limit and resets nothing by itself.
    """

    num_envs: int
    task: Any
    """The single Task, for its spaces, and to draw with."""

    def reset(
        self, rows: Rows, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin episodes of these rows, each drawn from its own generator, which the row keeps.

        `options` are those of Gymnasium's reset, with a value for all environments or one for each, (N, ...).

        Raises:
            ValueError: for options that make no sense; nothing was begun.
        """

    def remember(self, rows: Rows) -> None:
        """Keep what `get_state` of these rows will need after the next step."""

    def step(self, actions: np.ndarray, rows: Rows) -> BatchedStep:
        """Act in these rows; `actions` has a row for every simulation."""

    def observe(self) -> Any:
        """(N, *obs) present observations, in an array of the caller's own, or one a key of a Dict space."""

    def get_state(self, row: int) -> State:
        """What `Task.get_state` gives. After a step, only if it was told to `remember`."""

    def close(self) -> None:
        """End threads and free the single task."""
