"""The true reward reaches no place that an agent reads; the search is first shown to find it where it is planted."""

import re
from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics

import prefenvs
from prefenvs import Query, SegmentStore

ENV_ID = "prefenvs/Pendulum-v0"  # its rewards are irrational numbers, so an equal number is no accident


def numbers(value, depth=7, seen=None):
    """All numbers below a value: containers, arrays, text, and public attributes and properties of objects."""
    seen = {} if seen is None else seen
    if depth < 0 or id(value) in seen:
        return
    seen[id(value)] = value  # held, so that no other object gets its id
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
        for word in re.split(r"[^-+.\w]+", value):
            try:
                yield float(word)
            except ValueError:
                continue
    elif isinstance(value, dict):
        for part in (*value.keys(), *value.values()):
            yield from numbers(part, depth - 1, seen)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for part in value:
            yield from numbers(part, depth - 1, seen)
    elif not callable(value):
        for name in dir(value):
            if not name.startswith("_"):
                try:
                    part = getattr(value, name)
                except Exception as error:  # a property that has no value here; its message may hold one
                    part = str(error)
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


def play(env, mirror, steps=205):
    """Everything an agent can read of some steps, and the secrets: true rewards, factors and returns so far."""
    rng = np.random.default_rng(0)
    feedback = prefenvs.feedback(env)
    store = SegmentStore(env.observation_space, env.action_space)
    observation, info = env.reset(seed=1)
    mirror.reset(seed=1)
    returns, secrets, total = [{"info": info}], set(), 0.0
    for _ in range(steps):
        action = rng.uniform(-2, 2, (1,)).astype(np.float32)
        after, hidden, terminated, truncated, info = env.step(action)
        returns.append({"step": (hidden, terminated, truncated), "info": info})  # observations are the task's own
        ids = np.asarray(info["segment_id"])[None]
        store.add(observation[None], action[None], after[None], [terminated], [truncated], ids)
        observation = after
        _, reward, _, truncated, shown = mirror.step(action)
        total += reward
        secrets |= {reward, total, *shown["factors"].values()}
        if truncated:
            observation, info = env.reset(seed=2)
            returns.append({"info": info})
            mirror.reset(seed=2)
            total = 0.0
    segments = store.sample(8, 10, rng)
    label = feedback.ask(Query(segments))
    secrets |= set(prefenvs.true_scores(env, segments))
    learned = (feedback, label, segments.mask, segments.ids, segments.terminated, segments.truncated, segments.task)
    return {"returns": returns, "feedback": learned}, {secret for secret in secrets if abs(secret) > 1e-6}


def places_of(env, played):
    """What `play` saw, and all that can be reached from an environment by public names."""
    held = {key: [part[key] for part in played["returns"] if key in part] for key in ("step", "info")}
    return held | {
        "spec.kwargs": env.spec.kwargs,
        "repr": [repr(env), str(env), repr(env.unwrapped), repr(env.spec)],
        "attributes": env,
        "feedback": played["feedback"],
    }


def make():
    settings = {"budget": 5, "oracle": "hierarchical", "teacher": {"name": "mistake"}}
    return RecordEpisodeStatistics(gym.make(ENV_ID, **settings))


def test_no_place_holds_the_true_reward_a_factor_or_a_return():
    env = make()
    played, secrets = play(env, gym.make(ENV_ID, evaluation=True))
    assert len(secrets) > 600
    assert leaked(places_of(env, played), secrets) == set()


ARRAYS_ID = "prefenvs/HalfCheetah-v0"  # a batch of it steps as arrays


def play_batch(env_id=ENV_ID, steps=200):
    """The infos of a batch, the batch, its feedback, and the secrets of its first environment."""
    mode = {"autoreset_mode": "SameStep"}
    settings = mode if env_id == ARRAYS_ID else {"vectorization_mode": "sync", "vector_kwargs": mode}
    envs = gym.make_vec(env_id, num_envs=2, budget=5, **settings, max_episode_steps=steps)
    mirror = gym.make(env_id, evaluation=True)
    feedback = prefenvs.feedback(envs)
    envs.reset(seed=[1, 2])
    mirror.reset(seed=1)
    rng, secrets, infos, total = np.random.default_rng(0), set(), [], 0.0
    for _ in range(steps):
        actions = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        _, rewards, _, _, info = envs.step(actions)
        _, reward, _, _, shown = mirror.step(actions[0])
        total += reward
        secrets |= {reward, total, *shown["factors"].values()}
        infos.append({key: value for key, value in info.items() if key != "final_obs"})
        assert not rewards.any()
    places = {"infos": infos, "final_info": infos[-1].get("final_info"), "attributes": envs, "repr": repr(envs)}
    places |= {"spec.kwargs": envs.spec.kwargs, "feedback": feedback}
    return places, {secret for secret in secrets if abs(secret) > 1e-6}


@pytest.mark.parametrize("env_id", [ENV_ID, ARRAYS_ID])
def test_batches_hold_none_either(env_id):
    places, secrets = play_batch(env_id)
    assert places["final_info"] is not None
    assert len(secrets) > 600
    assert leaked(places, secrets) == set()


def leak(monkeypatch, show):
    """Have each step of a preference environment show its true reward: `show(env, reward, result) -> result`."""
    plain = prefenvs.PreferenceEnv.step

    def leaking(self, action):
        result = plain(self, action)
        return show(self, self._recorder._episodes[self._recorder.episode].rewards[-1], result)

    monkeypatch.setattr(prefenvs.PreferenceEnv, "step", leaking)


@pytest.mark.parametrize(
    "place",
    ["step", "info", "spec.kwargs", "repr", "attributes", "property", "wrapper", "return", "factor", "feedback"],
)
def test_the_search_finds_a_planted_leak(place, monkeypatch):
    env, mirror = make(), gym.make(ENV_ID, evaluation=True)

    def show(inner, true, result):
        observation, reward, terminated, truncated, info = result
        episode = inner._recorder._episodes[inner._recorder.episode]
        if place == "step":
            reward = true
        elif place == "info":
            info = info | {"deep": {"down": [np.array([true], np.float32)]}}
        elif place == "return":
            info = info | {"note": f"return so far: {sum(episode.rewards)}"}
        elif place == "factor":
            info = info | {"note": (episode.factors[-1][1],)}
        elif place == "spec.kwargs":
            env.spec.kwargs["note"] = {"rewards": [true]}
        elif place == "repr":
            monkeypatch.setattr(type(inner), "__repr__", lambda _: f"PreferenceEnv(last={true})")
        elif place == "attributes":
            inner.metadata["latest"] = true
        elif place == "property":
            monkeypatch.setattr(type(inner), "latest", property(lambda _: true), raising=False)
        elif place == "wrapper":
            env.env.return_queue = deque([true])
        else:
            inner._feedback.latest = true
        return observation, reward, terminated, truncated, info

    leak(monkeypatch, show)
    played, secrets = play(env, mirror, steps=20)
    seen_as = {"property": "attributes", "wrapper": "attributes", "return": "info", "factor": "info"}
    assert seen_as.get(place, place) in leaked(places_of(env, played), secrets)


@pytest.mark.parametrize("place", ["final_info", "attributes"])
def test_the_search_finds_a_leak_planted_in_a_batch(place, monkeypatch):
    def show(inner, true, result):
        if place == "attributes":
            inner.horizon = true
            return result
        return *result[:4], result[4] | {"last": true}

    leak(monkeypatch, show)
    places, secrets = play_batch()
    assert place in leaked(places, secrets)


@pytest.mark.parametrize("place", ["infos", "final_info", "attributes", "property", "spec.kwargs", "repr", "feedback"])
def test_the_search_finds_a_leak_planted_in_a_batch_of_arrays(place, monkeypatch):
    plain = prefenvs.PreferenceVectorEnv._after_step

    def leaking(self, actions, observations, result, acted):
        rewards, infos = plain(self, actions, observations, result, acted)
        true = result.rewards.copy()
        if place in ("infos", "final_info"):
            infos |= {"deep": {"last": true, "_last": acted}, "_deep": acted}
        elif place == "attributes":
            self.metadata["latest"] = true
        elif place == "property":
            monkeypatch.setattr(type(self), "latest", property(lambda _: result), raising=False)
        elif place == "spec.kwargs":
            self.spec.kwargs["note"] = [result.factors]
        elif place == "repr":
            monkeypatch.setattr(type(self), "__repr__", lambda _: f"PreferenceVectorEnv(last={true[0]})")
        else:
            self._feedback.latest = true
        return rewards, infos

    monkeypatch.setattr(prefenvs.PreferenceVectorEnv, "_after_step", leaking)
    places, secrets = play_batch(ARRAYS_ID, steps=20)
    assert {"property": "attributes"}.get(place, place) in leaked(places, secrets)


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
