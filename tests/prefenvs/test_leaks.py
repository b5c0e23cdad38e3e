"""The true reward reaches no place that an agent reads; the search is first shown to find it where it is planted."""

import gymnasium as gym
import numpy as np
import pytest

import prefenvs  # noqa: F401 (registers the environments)

ENV_ID = "prefenvs/Pendulum-v0"  # its rewards are irrational numbers, so an equal number is no accident


def numbers(value, depth=6, seen=None):
    """All numbers below a value: containers, arrays, text, and public attributes of objects."""
    seen = set() if seen is None else seen
    if depth < 0 or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, bool | type(None) | type):
        return
    if isinstance(value, int | float | np.number):
        yield float(value)
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            for part in value.ravel():
                yield from numbers(part, depth - 1, seen)
        elif value.dtype.kind in "fiu":
            yield from map(float, value.ravel())
    elif isinstance(value, str):
        for word in value.replace(",", " ").replace("(", " ").replace(")", " ").replace("=", " ").split():
            try:
                yield float(word)
            except ValueError:
                continue
    elif isinstance(value, dict):
        for part in value.values():
            yield from numbers(part, depth - 1, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from numbers(part, depth - 1, seen)
    elif hasattr(value, "__dict__") and not callable(value):
        for name, part in vars(value).items():
            if not name.startswith("_"):
                yield from numbers(part, depth - 1, seen)


def leaked(places, secrets):
    """Names of the places in which one of the secret numbers stands."""
    wanted = np.array(sorted(secrets))
    found = set()
    for name, value in places.items():
        held = np.array(list(numbers(value)), np.float64)
        if held.size and np.isclose(held[:, None], wanted[None], rtol=1e-6, atol=1e-12).any():
            found.add(name)
    return found


def layers(env):
    """An environment and all that it wraps, by public means."""
    while True:
        yield env
        if not isinstance(env, gym.Wrapper):
            return
        env = env.env


def play(env, mirror, steps=205):
    """Everything an agent can read of some steps, and the secrets: true rewards and factors that are not 0."""
    rng = np.random.default_rng(0)
    first = env.reset(seed=1)
    mirror.reset(seed=1)
    returns, secrets = [first], set()
    for _ in range(steps):
        action = rng.uniform(-2, 2, (1,)).astype(np.float32)
        returns.append(env.step(action)[1:])  # observations are the task's own and may determine the reward
        _, reward, _, truncated, info = mirror.step(action)
        secrets |= {reward, *info["factors"].values()}
        if truncated:
            returns.append((env.reset(seed=2)[1],))
            mirror.reset(seed=2)
    secrets -= {0.0}
    return returns, {secret for secret in secrets if abs(secret) > 1e-6}


def places_of(env, returns):
    held = {"step": [part[:-1] for part in returns[1:]], "info": [part[-1] for part in returns]}
    held["spec.kwargs"], held["repr"] = env.spec.kwargs, [repr(layer) for layer in layers(env)]
    held["attributes"] = [
        {name: value for name, value in vars(layer).items() if not name.startswith("_") and name != "env"}
        for layer in layers(env)
    ]
    return held


def test_no_place_holds_the_true_reward_or_a_factor():
    env = gym.make(ENV_ID, budget=5, oracle="hierarchical", teacher="noisy")
    returns, secrets = play(env, gym.make(ENV_ID, evaluation=True))
    assert len(secrets) > 400
    assert leaked(places_of(env, returns), secrets) == set()


def test_vector_infos_hold_none_either():
    envs = gym.make_vec(
        ENV_ID, num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"}, budget=5
    )
    mirror = gym.make(ENV_ID, evaluation=True)
    envs.reset(seed=[1, 2])
    mirror.reset(seed=1)
    rng, secrets, infos = np.random.default_rng(0), set(), []
    for _ in range(200):
        actions = rng.uniform(-2, 2, (2, 1)).astype(np.float32)
        _, rewards, _, _, info = envs.step(actions)
        _, reward, _, _, shown = mirror.step(actions[0])
        secrets |= {reward, *shown["factors"].values()}
        infos.append({key: value for key, value in info.items() if key != "final_obs"})
        assert not rewards.any()
    assert "final_info" in infos[-1]
    assert leaked({"infos": infos}, {s for s in secrets if abs(s) > 1e-6}) == set()


@pytest.mark.parametrize("place", ["step", "info", "spec.kwargs", "repr", "attributes"])
def test_the_search_finds_a_planted_leak(place, monkeypatch):
    env = gym.make(ENV_ID, budget=5)
    mirror = gym.make(ENV_ID, evaluation=True)
    inner = env.unwrapped
    plain = type(inner).step

    def leaking(self, action):
        observation, reward, terminated, truncated, info = plain(self, action)
        true = self._recorder._episodes[self._recorder.episode].rewards[-1]
        if place == "step":
            reward = true
        elif place == "info":
            info = info | {"deep": {"down": [np.array([true])]}}
        elif place == "spec.kwargs":
            env.spec.kwargs["note"] = (true,)
        elif place == "repr":
            monkeypatch.setattr(type(self), "__repr__", lambda _: f"PreferenceEnv(last={true})")
        else:
            self.metadata["latest"] = true
        return observation, reward, terminated, truncated, info

    monkeypatch.setattr(type(inner), "step", leaking)
    returns, secrets = play(env, mirror, steps=20)
    assert place in leaked(places_of(env, returns), secrets)


def test_the_learners_files_hold_no_true_reward(tmp_path):
    from prefenvs.agents.checkpoint import read_folder
    from prefenvs.agents.preference_callback import PreferenceConfig
    from prefenvs.agents.presets import Preset
    from prefenvs.agents.train import Run, train

    asked = PreferenceConfig(queries=6, sessions=1, first_session=120, segment_steps=20, hidden=(4,), reward_epochs=1)
    small = {"learning_starts": 100, "policy_kwargs": {"net_arch": [4]}, "batch_size": 8, "buffer_size": 500}
    preset = Preset("Pendulum", "pebble", 200, 1, small, asked, 1000, 150, "test")
    train(Run(preset, device="cpu"), tmp_path, quiet=True)
    files, _ = read_folder(tmp_path / "checkpoints" / "000001")
    secrets = {float(reward) for reward in files["teacher"]["0/rewards"]}
    assert len(secrets) > 100
    assert leaked({"learner": files["learner"]}, secrets) == set()
    assert leaked({"teacher": files["teacher"]}, secrets) == {"teacher"}
