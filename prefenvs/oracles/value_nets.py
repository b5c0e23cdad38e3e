"""Values of a trained policy as small networks in one file, read and evaluated with numpy alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prefenvs.error import DamagedFile
from prefenvs.segments import Arrays

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weight (in, out) and bias (out,) of each layer; ReLU between layers."""

SIZE_LIMIT = 300_000
"""Bytes that a file shipped with the library may have."""


def mlp(layers: Layers, inputs: np.ndarray) -> np.ndarray:
    """(B, in) float32 inputs through linear layers with ReLU between them: (B, out) float32."""
    x = inputs
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, np.float32(0))
    return x @ layers[-1][0] + layers[-1][1]


@dataclass(frozen=True)
class NetworkValues:
    """State values of one deterministic policy, which is good and not optimal: where it is outdone regret is below 0.

    No action values: control tasks are deterministic, so rewards and state values tell regret (`DeterministicRegret`),
    and a network of q would add its own error at every step.
    """

    policy: Layers
    """From observations to actions before the squashing to [low, high] by tanh."""
    value: Layers
    """From observations to values, in units of return."""
    low: np.ndarray
    """(act,) least action."""
    high: np.ndarray
    """(act,) greatest action."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Where they come from: task, gamma, steps, seed, score, reference_score, command, versions, fit error."""

    @property
    def gamma(self) -> float:
        """Discount the values were computed with."""
        return float(self.facts["gamma"])

    @property
    def source(self) -> str:
        """Where they come from."""
        return f"a policy of mean true return {self.facts['score']:.1f} ({self.facts['command']})"

    @cached_property
    def _width(self) -> int:
        return self.policy[0][0].shape[0]

    def act(self, observations: Arrays) -> np.ndarray:
        """(..., obs) observations to (..., act) actions of the policy, within the action space."""
        flat, lead = self._flat(observations)
        squashed = np.tanh(mlp(self.policy, flat))
        return (self.low + (self.high - self.low) * (squashed + 1) / 2).reshape(*lead, -1)

    def v(self, observations: Arrays) -> np.ndarray:
        """(..., obs) observations to (...) values, in units of return."""
        flat, lead = self._flat(observations)
        return mlp(self.value, flat)[:, 0].astype(np.float64).reshape(lead)

    def predict(self, observation: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
        """One action, as SB3's models give it: so the policy can be scored like any agent."""
        return self.act(observation), None

    def _flat(self, observations: Arrays) -> tuple[np.ndarray, tuple[int, ...]]:
        array = np.asarray(observations, np.float32)
        if array.shape[-1:] != (self._width,):
            raise ValueError(
                f"observations have shape {array.shape}, expected (..., {self._width}): these are values of "
                f"{self.facts.get('task', 'another task')}."
            )
        return array.reshape(-1, self._width), array.shape[:-1]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        arrays: dict[str, np.ndarray] = {"low": self.low, "high": self.high}
        for name, layers in (("policy", self.policy), ("value", self.value)):
            for i, (weight, bias) in enumerate(layers):
                arrays |= {f"{name}/{i}/weight": np.ascontiguousarray(weight), f"{name}/{i}/bias": bias}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        save_file(arrays, part, metadata={"values": json.dumps(dict(self.facts))})
        os.replace(part, path)


def load_values(path: str | Path) -> NetworkValues:
    """Read values that `prefenvs experts train` wrote.

    Args:
        path: a safetensors file.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it cannot be read in full or does not hold what it should.

    Example:
        >>> values = load_values("Pendulum.safetensors")                             # doctest: +SKIP
        >>> env = gym.make("prefenvs/Pendulum-v0", oracle=Regret(values=values))     # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}. `prefenvs experts train --env <task> --out {path}` writes one.")
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {})["values"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        policy, value = _layers("policy", arrays), _layers("value", arrays)
        values = NetworkValues(policy, value, arrays["low"], arrays["high"], facts)
        _check(values, arrays)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DamagedFile(f"{path} cannot be read as values of a policy ({error}). It was left as it is.") from error
    return values


def _layers(name: str, arrays: Mapping[str, np.ndarray]) -> Layers:
    count = sum(key.startswith(f"{name}/") and key.endswith("/weight") for key in arrays)
    return tuple((arrays[f"{name}/{i}/weight"], arrays[f"{name}/{i}/bias"]) for i in range(count))


def _check(values: NetworkValues, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError or KeyError unless the networks fit each other and one forward pass gives finite numbers."""
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{name} is {array.dtype}, or not finite; expected finite float32")
    if not 0 < values.gamma < 1:
        raise ValueError(f"gamma={values.gamma} is not a discount")
    if not (values.policy and values.value):
        raise ValueError("a network is missing")
    observations = np.zeros((1, values.policy[0][0].shape[0]))
    if values.v(observations).shape != (1,) or values.act(observations).shape[1:] != values.low.shape:
        raise ValueError("the networks do not fit each other")
