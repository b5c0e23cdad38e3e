import json
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import prefenvs
from prefenvs.calibration import reference_set
from prefenvs.error import DamagedFile, NoExpert
from prefenvs.making import make_task
from prefenvs.oracles import DeterministicRegret, Regret, expert_values, make_oracle, shipped_experts
from prefenvs.oracles.value_nets import SIZE_LIMIT, NetworkValues, load_values
from prefenvs.oracles.values import EXPERTS_FOLDER
from prefenvs.segments import JudgedSegments
from prefenvs.tasks import TASKS

SHIPPED = shipped_experts()
FACTS = {"task": "Toy", "gamma": 0.5, "score": 1.0, "command": "none"}


def toy():
    """One observation, one action in [-2, 2]. Policy: the action 1. V(s) = |s|, by two rectified units."""
    f = np.float32
    policy = ((f([[0.0]]), f([np.arctanh(0.5)])),)
    value = ((f([[1.0, -1.0]]), f([0.0, 0.0])), (f([[1.0], [1.0]]), f([0.0])))
    return NetworkValues(policy, value, f([-2]), f([2]), FACTS)


def test_values_of_networks_that_can_be_worked_out_by_hand():
    observations = np.array([[[1.0], [-3.0]]])  # (n, T, obs) = (1, 2, 1)
    np.testing.assert_allclose(toy().v(observations), [[1.0, 3.0]])
    np.testing.assert_allclose(toy().act(observations), np.ones((1, 2, 1)), rtol=1e-6)


def test_a_saved_file_reads_the_same(tmp_path):
    toy().save(tmp_path / "toy.safetensors")
    again = load_values(tmp_path / "toy.safetensors")
    observations = np.random.default_rng(0).normal(size=(7, 5, 1))
    np.testing.assert_array_equal(again.v(observations), toy().v(observations))
    np.testing.assert_array_equal(again.act(observations), toy().act(observations))
    assert (again.gamma, again.facts) == (0.5, FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.safetensors"]


def write(path, arrays, **facts):
    save_file(arrays, path, metadata={"values": json.dumps({**FACTS, **facts})})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, arrays: path.write_bytes(path.read_bytes()[:-50]),
        lambda path, arrays: path.write_text("not a file of tensors"),
        lambda path, arrays: save_file(arrays, path),
        lambda path, arrays: write(path, arrays, gamma=1.5),
        lambda path, arrays: write(path, arrays | {"low": np.float32([np.nan])}),
        lambda path, arrays: write(path, arrays | {"value/0/weight": np.zeros((7, 2), np.float32)}),
        lambda path, arrays: write(path, {k: a for k, a in arrays.items() if not k.startswith("value")}),
        lambda path, arrays: write(path, arrays | {"high": np.float64([2.0])}),
    ],
    ids=["cut", "text", "no facts", "gamma", "nan", "shape", "no value", "dtype"],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, damage):
    path = tmp_path / "toy.safetensors"
    toy().save(path)
    damage(path, load_file(path))
    before = path.read_bytes()
    with pytest.raises(DamagedFile, match=r"toy\.safetensors cannot be read as values"):
        load_values(path)
    assert path.read_bytes() == before


def test_observations_of_another_task_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 3\), expected \(\.\.\., 1\): these are values of Toy"):
        toy().v(np.zeros((4, 3)))


def test_a_task_without_values_names_the_command_that_trains_them():
    with pytest.raises(NoExpert, match="prefenvs experts train --env Reacher"):
        expert_values("Reacher")
    with pytest.raises(NoExpert, match=r"'TextSentiment', so regret cannot be measured\. Pass oracle=Regret"):
        expert_values("TextSentiment")  # experts act in continuous spaces only
    with pytest.raises(NoExpert, match="Pass oracle=Regret"):
        expert_values("MyOwnTask")
    with pytest.raises(NoExpert, match="'Pendulum' with other g, so regret"):
        expert_values("Pendulum", {"g": 5.0})
    assert expert_values("HalfCheetah", {"width": 64}).facts["task"] == "HalfCheetah"
    assert expert_values("Pendulum", {"g": 10.0}).facts["task"] == "Pendulum"  # as it is anyway


def test_a_file_of_ones_own_is_named_by_its_path(tmp_path):
    toy().save(tmp_path / "mine.safetensors")
    for path in (tmp_path / "mine.safetensors", str(tmp_path / "mine.safetensors")):
        assert make_oracle({"name": "regret", "values": path}, "Reacher").values.gamma == 0.5
    with pytest.raises(FileNotFoundError, match="prefenvs experts train"):
        make_oracle({"name": "regret", "values": "nowhere.safetensors"}, "Reacher")
    assert prefenvs.load_values is load_values


def test_values_ship_for_some_tasks():
    assert {"Pendulum", "MountainCarContinuous", "HalfCheetah", "Hopper", "Walker2d"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_small_fits_its_task_and_says_where_it_is_from(name):
    assert (EXPERTS_FOLDER / f"{name}.safetensors").stat().st_size <= SIZE_LIMIT
    values, task = expert_values(name), make_task(TASKS[name])
    observations = np.stack([task.reset(seed=seed)[0] for seed in range(3)])
    actions = values.act(observations)
    task.close()
    assert values.v(observations).shape == (3,)
    assert actions.shape == (3, *task.action_space.shape)
    assert np.all((actions >= task.action_space.low) & (actions <= task.action_space.high))
    facts = values.facts
    assert facts["task"] == name
    assert facts["command"].startswith(f"prefenvs experts train --env {name}")
    assert {"steps", "seed", "versions", "fit", "reference_score"} <= set(facts)
    assert facts["score"] > TASKS[name].random_score.mean + 3 * TASKS[name].random_score.sd
    assert str(round(facts["score"], 1)) in values.source


def played(name, steps, seed, random_share):
    """Segments in which a share of the expert's actions is random, from states that up to 60 steps of the same led to,
    and the state each begins and ends in. Those that end an episode, as by a fall, are shorter."""
    rng, task, values = np.random.default_rng(seed), make_task(TASKS[name]), expert_values(name)
    task.reset(seed=seed)
    task.action_space.seed(seed)
    rows, states, count = [], [], len(random_share)

    def act(observation):
        return task.action_space.sample() if rng.random() < random_share[len(rows)] else values.act(observation)

    while len(rows) < count:
        observation, healthy = task.reset()[0], True
        for _ in range(int(rng.integers(60))):
            observation, _, terminated, _, _ = task.step(act(observation))
            healthy &= not terminated
        if not healthy:
            continue
        row = {"observations": np.zeros((steps + 1, *observation.shape)), "rewards": np.zeros(steps)}
        row |= {"actions": np.zeros((steps, *task.action_space.shape)), "mask": np.zeros(steps, bool)}
        row["observations"][0], first, terminated = observation, task.get_state(), False
        for t in range(steps):
            row["actions"][t] = act(observation)
            observation, row["rewards"][t], terminated, _, _ = task.step(row["actions"][t])
            row["observations"][t + 1], row["mask"][t] = observation, True
            if terminated:
                break
        rows.append(row | {"terminated": terminated})
        states.append((first, task.get_state()))
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return JudgedSegments(**columns, factors={}), states, task


@pytest.mark.parametrize("name", SHIPPED)
def test_random_actions_give_something_up(name):
    # 300 segments, because most of random play in Pendulum costs little and some of it costs a whole swing: of 50, even
    # the regret by playing on is only 2.9 standard errors below 0.
    segments, _, task = played(name, 5, 0, np.ones(300))
    task.close()
    advantage = DeterministicRegret(expert_values(name)).utility(segments)[:, 0]
    assert advantage.mean() < -4 * advantage.std() / np.sqrt(300), "by four standard errors"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_expert_gives_up_little_of_what_random_actions_do(name):
    segments, _, task = played(name, 25, 0, np.repeat([0.0, 1.0], 50))
    task.close()
    advantage = np.abs(DeterministicRegret(expert_values(name)).utility(segments)[:, 0])
    assert advantage[:50].mean() < 0.1 * advantage[50:].mean()


@pytest.mark.parametrize("name", SHIPPED)
def test_regret_of_a_segment_is_that_of_its_parts(name):
    values, ten = expert_values(name), reference_set(name, 10)
    whole = DeterministicRegret(values).utility(ten)[:, 0]
    full = ten.mask.all(1)
    first, second = (
        JudgedSegments(
            ten.observations[full, part.start : part.stop + 1],
            ten.actions[full, part],
            ten.rewards[full, part],
            {},
            ten.mask[full, part],
            ten.terminated[full] & last,
        )
        for part, last in ((slice(0, 4), False), (slice(4, 10), True))
    )
    parts = [DeterministicRegret(values).utility(half)[:, 0] for half in (first, second)]
    np.testing.assert_allclose(parts[0] + values.gamma**4 * parts[1], whole[full], atol=1e-3)


def return_from(task, state, values):
    """The expert's discounted return from a state, by playing to the end or until the rest weighs under a hundredth."""
    task.set_state(state[0])
    observation, total = state[1], 0.0
    for t in range(int(np.log(0.01) / np.log(values.gamma))):
        observation, reward, terminated, _, _ = task.step(values.act(observation))
        total += values.gamma**t * reward
        if terminated:
            break
    return total


@pytest.mark.parametrize("name", SHIPPED)
def test_advantages_rank_segments_as_playing_on_from_restored_states_does(name):
    scipy_stats = pytest.importorskip("scipy.stats")
    count, steps, values = 24, 25, expert_values(name)
    segments, states, task = played(name, steps, 1, np.linspace(0, 1, count))
    discount = values.gamma ** np.arange(steps)
    first, last = segments.ends()
    begun = [return_from(task, (s[0], o), values) for s, o in zip(states, first, strict=True)]
    ended = [return_from(task, (s[1], o), values) for s, o in zip(states, last, strict=True)]
    task.close()
    rest = values.gamma ** segments.mask.sum(1) * ~segments.terminated * np.array(ended)
    played_on = segments.rewards @ discount + rest - np.array(begun)
    learned = DeterministicRegret(values).utility(segments)[:, 0]
    assert scipy_stats.spearmanr(played_on, learned).statistic > 0.7


def test_a_regret_teacher_answers_through_gym_make():
    env = gym.make("prefenvs/Pendulum-v0", oracle="regret", budget=20)
    feedback = prefenvs.feedback(env)
    store = prefenvs.SegmentStore(env.observation_space, env.action_space, 1)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(200):
        action = env.action_space.sample()
        after, _, terminated, truncated, info = env.step(action)
        ends = (np.array([terminated]), np.array([truncated]))
        store.add(observation[None], action[None], after[None], *ends, info["segment_id"][None])
        observation = after
    query = prefenvs.Query(store.sample(40, 10, np.random.default_rng(0)))
    label = feedback.ask(query)
    values, segments = expert_values("Pendulum"), query.segments
    gone = values.gamma**10 * values.v(segments.observations[:, -1]) - values.v(segments.observations[:, 0])
    rewards = pendulum_rewards(segments.observations[:, :-1], segments.actions)
    score = (rewards @ values.gamma ** np.arange(10) + gone).reshape(-1, 2)
    np.testing.assert_array_equal(label.choice.argmax(1), score.argmax(1))
    assert feedback.remaining == 0


def pendulum_rewards(observations, actions):
    """-(angle^2 + 0.1 speed^2 + 0.001 torque^2), from Gymnasium's documentation."""
    angle = np.arctan2(observations[..., 1], observations[..., 0])
    return -(angle**2 + 0.1 * observations[..., 2] ** 2 + 0.001 * actions[..., 0] ** 2)


def test_regret_by_name_takes_the_form_that_the_values_allow():
    assert isinstance(make_oracle("regret", "Pendulum"), DeterministicRegret)
    assert isinstance(make_oracle("regret", "GridDelivery"), Regret)
    with pytest.raises(TypeError, match=r"no q\(obs, act\).*use DeterministicRegret"):
        Regret(expert_values("Pendulum"))
    with pytest.raises(TypeError, match="use DeterministicRegret"):
        make_oracle({"name": "regret", "discounted": True}, "Pendulum")


def test_reading_values_loads_no_torch():
    program = "import sys; from prefenvs.oracles import expert_values as e; e('Pendulum').v([[1.0, 0.0, 0.0]]); "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_facts_do_not_change_the_numbers():
    renamed = replace(toy(), facts={**FACTS, "score": 2.0})
    assert renamed.v(np.ones((1, 1))) == toy().v(np.ones((1, 1)))
