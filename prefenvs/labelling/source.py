"""Reaches the recorders behind an environment, a Gymnasium vector environment or an SB3 VecEnv."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym


class Source(Protocol):
    """The oracle's side of one or more preference environments, wherever they run."""

    num_streams: int
    base: Any
    """The object that feedback is remembered on."""

    def ask_all(self, request: str, arguments: list[tuple[Any, ...] | None]) -> list[Any]:
        """Send a request to each stream, or nothing where its arguments are None; the replies in order.

        An error of one stream is raised after all have replied, so that no stream is left behind.
        """


class LocalSource:
    """Environments that live in this process."""

    def __init__(self, envs: list[Any], base: Any) -> None:
        """Reach `envs`, each a PreferenceEnv or wrappers around one."""
        self.envs, self.base = [env.unwrapped for env in envs], base
        self.num_streams = len(envs)
        for env in self.envs:
            _check(env, hasattr(env, "_oracle_side"))

    def ask_all(self, request: str, arguments: list[tuple[Any, ...] | None]) -> list[Any]:
        """Call each environment."""
        pairs = zip(self.envs, arguments, strict=True)
        return _checked([None if given is None else env._oracle_side(request, *given) for env, given in pairs])


class SubprocSource:
    """Environments in the workers of an SB3 SubprocVecEnv."""

    def __init__(self, venv: Any) -> None:
        """Reach the workers of `venv`."""
        self.base, self.num_streams = venv, venv.num_envs
        _check(venv, venv.has_attr("_oracle_side"))

    def ask_all(self, request: str, arguments: list[tuple[Any, ...] | None]) -> list[Any]:
        """Call each worker that is asked."""
        return _checked(
            [
                None if given is None else self.base.env_method("_oracle_side", request, *given, indices=[index])[0]
                for index, given in enumerate(arguments)
            ]
        )


class AsyncSource:
    """Environments in the workers of a Gymnasium AsyncVectorEnv. They share a call, so each picks its own part."""

    def __init__(self, venv: Any) -> None:
        """Reach the workers of `venv`."""
        self.base, self.num_streams = venv, venv.num_envs
        _check(venv, all(venv.call("has_wrapper_attr", "_oracle_side")))  # a worker that is asked for it in vain dies

    def ask_all(self, request: str, arguments: list[tuple[Any, ...] | None]) -> list[Any]:
        """Call the workers that are asked, over the same pipes as AsyncVectorEnv.call, without sending all to all."""
        asked = [index for index, given in enumerate(arguments) if given is not None]
        for index in asked:
            self.base.parent_pipes[index].send(("_call", ("_oracle_side", [request, *(arguments[index] or ())], {})))
        replies: list[Any] = [None] * self.num_streams
        outcomes = [self.base.parent_pipes[index].recv() for index in asked]
        self.base._raise_if_errors([ok for _, ok in outcomes])
        for index, (reply, _) in zip(asked, outcomes, strict=True):
            replies[index] = reply
        return _checked(replies)


class BatchSource:
    """A batch that steps as arrays, and answers for each of its streams."""

    def __init__(self, batch: Any) -> None:
        """Reach `batch`, a PreferenceVectorEnv."""
        self.base, self.num_streams = batch, batch.num_envs

    def ask_all(self, request: str, arguments: list[tuple[Any, ...] | None]) -> list[Any]:
        """Ask the batch about each stream."""
        return _checked(
            [
                None if given is None else self.base._oracle_side(stream, request, *given)
                for stream, given in enumerate(arguments)
            ]
        )


def find_source(env: Any) -> Source:
    """The source behind any environment made of preference environments.

    Raises:
        TypeError: if there is no preference environment inside.
        EvaluationOnly: if it was made with evaluation=True.
    """
    if isinstance(env, gym.Env):
        return LocalSource([env], env.unwrapped)
    base = env.unwrapped
    if hasattr(base, "_oracle_side"):
        return BatchSource(base)
    if hasattr(base, "batch"):  # the SB3 view of one
        return BatchSource(base.batch)
    if isinstance(base, gym.vector.AsyncVectorEnv):
        return AsyncSource(base)
    if hasattr(base, "envs"):  # gymnasium's SyncVectorEnv and SB3's DummyVecEnv
        envs = list(base.envs)
        return LocalSource(envs, envs[0].unwrapped if len(envs) == 1 else base)
    if hasattr(base, "env_method"):
        return SubprocSource(base)
    raise TypeError(f"{type(env).__name__} is not an environment, a VectorEnv or a VecEnv of preference environments.")


def _checked(replies: list[Any]) -> list[Any]:
    """The replies; the first error among them is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _check(env: Any, found: bool) -> None:
    if not found:
        raise TypeError(
            f"{env} is not a preference environment. Make one by gym.make('prefenvs/...') or prefenvs.wrap(env)."
        )
