"""Answers that are kept in a file are served again to the run that asked for them, and to no other."""

import dataclasses
import json
import pickle
import sqlite3
from functools import partial, wraps

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs import Query
from prefenvs.calibration import Calibration
from prefenvs.labelling.described import described
from prefenvs.labelling.feedback import Feedback
from prefenvs.labelling.source import find_source
from prefenvs.labelling.store import pack
from prefenvs.oracles import DeterministicRegret, Hierarchical, TabularValues
from prefenvs.teacher import make_teacher
from tests.prefenvs.labelling.recorded import pendulum


def reopened(env):
    """A second feedback of the same environment, as a new process would make it."""
    return Feedback(find_source(env))


@pytest.mark.parametrize("answer", ["choice", "ranking", "rating", "soft"])
def test_answers_are_served_from_the_store_again(answer, tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"), answer=answer, budget=20)
    query = Query(segments)
    label = prefenvs.feedback(env).ask(query)
    again = reopened(env)
    assert again._store.count() == 20
    served = again.ask(query)
    for field in dataclasses.fields(label):
        one, two = getattr(label, field.name), getattr(served, field.name)
        assert (one is None and two is None) or np.array_equal(one, two, equal_nan=True)
    assert (again._store.count(), again.asked, again.remaining) == (20, 20, 0)


def test_a_new_process_without_recordings_is_served_the_same_and_charged_once(tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"), budget=20)
    label = prefenvs.feedback(env).ask(Query(segments))
    copy = pickle.loads(pickle.dumps(env.unwrapped))  # the recipe alone: no episode is in its recorder
    again = prefenvs.feedback(copy)
    np.testing.assert_array_equal(again.ask(Query(segments)).choice, label.choice)
    assert (again.asked, again.answered, again.remaining) == (20, 20, 0)
    with pytest.raises(prefenvs.BudgetSpent):
        again.ask(Query(segments[:2]))


def test_a_batch_that_is_partly_stored_keeps_its_stored_answers(tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"))
    query = Query(segments)
    first = prefenvs.feedback(env).ask(query[:7])
    # Raw thresholds follow the latest returns, so an answer is not to be worked out a second time.
    again = reopened(env)
    with again._store._connection as connection:
        connection.execute("UPDATE batches SET answers = ?", [pack(first[::-1])])
    label = again.ask(query)
    np.testing.assert_array_equal(label.choice[:7], first.choice[::-1])
    assert again._store.count() == 20


@pytest.mark.parametrize("cuts", [[20], [1, 5, 6, 13, 20], [*range(1, 21)]], ids=["whole", "parts", "one by one"])
@pytest.mark.parametrize("stored", [slice(0, 20), slice(0, 8), slice(4, 11), slice(12, 20)])
def test_it_does_not_matter_how_questions_are_batched_when_they_are_asked_again(cuts, stored, tmp_path):
    env, segments = pendulum(teacher="noisy", store=str(tmp_path / "a.sqlite"))
    query, feedback = Query(segments), prefenvs.feedback(env)
    feedback._next = stored.start  # as a run that was resumed from a checkpoint after its store was lost
    label = feedback.ask(query[stored])
    with feedback._store._connection as connection:
        connection.execute("UPDATE batches SET answers = ?", [pack(label[::-1])])
    again = reopened(env)
    edges = zip([0, *cuts], cuts, strict=False)
    served = np.concatenate([again.ask(query[start:stop]).choice for start, stop in edges])
    np.testing.assert_array_equal(served[stored], label.choice[::-1])
    assert again._store.count() == 20
    other = reopened(env)
    with pytest.raises(prefenvs.RunMismatch, match=r"query 5 .* about other segments"):
        other.ask(query[[*range(5), 6, *range(6, 20)]])
    assert other.asked == 0


def test_two_processes_cannot_both_answer_a_question(tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    one, two, query = prefenvs.feedback(env), reopened(env), Query(segments)
    two._store.find = lambda *_, **__: {}  # it looked before the other had answered
    one.ask(query[:4])
    two._next = 3
    with pytest.raises(prefenvs.RunMismatch, match="another process has answered query 3"):
        two.ask(query[3:6])
    two._next = 4
    two.ask(query[4:6])
    assert one._store.count() == 6


def test_a_store_of_an_earlier_version_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (run TEXT, number INTEGER, payload BLOB, answer BLOB)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(prefenvs.RunMismatch, match="earlier version"):
        pendulum(1, store=str(path), segments=0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("changed", ["observations", "actions"])
def test_other_segments_with_the_same_ids_are_another_question(changed, tmp_path):
    """Two runs of fixed-length episodes that differ in the agent alone ask about the same ids."""
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    other = dataclasses.replace(segments, **{changed: getattr(segments, changed) * np.float32(0.5)})
    with pytest.raises(prefenvs.RunMismatch, match=r"query 0 .* about other segments"):
        again.ask(Query(other))
    assert again.asked == 0


def test_two_runs_in_one_file_do_not_meet(tmp_path):
    path = str(tmp_path / "a.sqlite")
    for run, teacher in (("one", "oracle"), ("two", "noisy")):
        env, segments = pendulum(store=path, run=run, teacher=teacher)
        prefenvs.feedback(env).ask(Query(segments))
        assert prefenvs.feedback(env)._store.count() == 20


def test_another_question_under_a_used_number_is_refused(tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    for query in (Query(segments[::-1]), Query(segments, context={"prompt": np.zeros(20)})):
        with pytest.raises(prefenvs.RunMismatch, match=r"query 0 .* about other segments or context"):
            again.ask(query)
    assert again.asked == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": "noisy"},
        {"oracle": "hierarchical"},
        {"answer": "soft"},
        {"feedback_seed": 1},
        {"calibration": Calibration(sd=3.0)},
        {"task_kwargs": {"g": 5.0}},
        {"task_kwargs": {"g": np.full(1, 10.0)}},
    ],
)
def test_a_store_of_other_settings_is_refused(changed, tmp_path):
    path = str(tmp_path / "a.sqlite")
    pendulum(1, store=path, segments=0)
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        pendulum(1, store=path, segments=0, **changed)


class Weighed:
    """An oracle whose settings nobody can read."""

    def __init__(self, weight):
        self.weight = weight

    def utility(self, segments):
        return self.weight * segments.rewards


@dataclasses.dataclass(frozen=True, eq=False)
class WeighedSteps:
    values: np.ndarray

    def utility(self, segments):
        return self.values[: segments.mask.shape[1]] * segments.rewards


class Plain:
    """An oracle without settings."""

    def utility(self, segments):
        return segments.rewards


def test_a_file_keeps_no_answers_of_an_oracle_whose_settings_cannot_be_told(tmp_path):
    path = tmp_path / "a.sqlite"
    with pytest.raises(TypeError, match="Make Weighed a dataclass"):
        pendulum(1, store=str(path), segments=0, oracle=Weighed(1.0))
    assert not path.exists()
    pendulum(1, segments=0, oracle=Weighed(1.0))  # in memory nobody else is served
    for _ in range(2):
        pendulum(1, store=str(path), segments=0, oracle=Plain())


def test_oracles_that_differ_deep_in_an_array_do_not_share_a_store(tmp_path):
    path, weights = str(tmp_path / "a.sqlite"), np.ones(2000)
    for _ in range(2):
        pendulum(1, store=path, segments=0, oracle=WeighedSteps(weights.copy()))
    weights[1000] += 1e-12
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        pendulum(1, store=path, segments=0, oracle=WeighedSteps(weights))


def made(fields, name="Fond", bases=()):
    """An oracle of a dataclass with these fields and defaults, as one version of a package defines it."""
    own = [(field, object, dataclasses.field(default_factory=lambda v=value: v)) for field, value in fields.items()]
    cls = dataclasses.make_dataclass(name, own, bases=bases, frozen=True)
    cls.utility = lambda self, segments: segments.rewards
    return cls


def opened(path, oracle, **settings):
    pendulum(1, store=str(path), segments=0, oracle=oracle, **settings)


LONG = tuple(range(200))
"""What is hashed."""


def test_answers_of_an_oracle_outlive_a_field_that_a_later_version_adds(tmp_path):
    before, after = made({"weights": LONG}), made({"weights": LONG, "users": 1})
    opened(tmp_path / "a.sqlite", before())
    opened(tmp_path / "a.sqlite", after())
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with no oracle\.users, now it is 2"):
        opened(tmp_path / "a.sqlite", after(users=2))
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with oracle\.weights = .*, now it is \(0, 1\)"):
        opened(tmp_path / "a.sqlite", after((0, 1)))
    opened(tmp_path / "b.sqlite", after())
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with oracle\.users = 1, now there is none"):
        opened(tmp_path / "b.sqlite", before())
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with oracle = .*Fond.*, now it is .*Else"):
        opened(tmp_path / "b.sqlite", made({"weights": LONG, "users": 1}, "Else")())


def test_fields_of_an_oracles_parts_are_compared_one_by_one(tmp_path):
    crowd = made({"members": ()}, "Crowd")
    before, after = made({"weight": 1.0}), made({"weight": 1.0, "users": 1})
    opened(tmp_path / "a.sqlite", crowd((before(), before(2.0))))
    opened(tmp_path / "a.sqlite", crowd((after(), after(2.0))))
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with oracle\.members\[1\]\.weight = 2.0, now it is 3.0"):
        opened(tmp_path / "a.sqlite", crowd((after(), after(3.0))))
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with oracle\.members = "):
        opened(tmp_path / "a.sqlite", crowd((after(),)))


def test_an_added_field_without_a_default_is_another_oracle(tmp_path):
    cls = dataclasses.make_dataclass("Fond", ["weight"], bases=(made({}),), frozen=True)
    opened(tmp_path / "a.sqlite", made({})())
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with no oracle\.weight, now it is 1"):
        opened(tmp_path / "a.sqlite", cls(1))


@pytest.mark.parametrize("part", ["teacher", "calibration"])
def test_answers_outlive_a_field_that_the_teacher_or_the_units_gain(part, tmp_path):
    settings = {"teacher": {"name": "noisy", "beta": 2.0}, "calibration": Calibration(sd=3.0)}
    field, default, other = {
        "teacher": ("eps_equal", "0.0", {"teacher": {**settings["teacher"], "eps_equal": 0.1}}),
        "calibration": ("floor", "0.0", {"calibration": Calibration(sd=3.0, floor=1.0)}),
    }[part]
    path = tmp_path / "a.sqlite"
    opened(path, "partial_return", **settings)
    with sqlite3.connect(path) as connection:  # as a version without the field wrote it
        kept = json.loads(connection.execute("SELECT config FROM runs").fetchone()[0])
        assert kept[part].pop(field) == default
        connection.execute("UPDATE runs SET config = ?", [json.dumps(kept)])
    connection.close()
    opened(path, "partial_return", **settings)
    with pytest.raises(prefenvs.RunMismatch, match=rf"begun with no {part}\.{field}, now it is"):
        opened(path, "partial_return", **{**settings, **other})


def test_a_teacher_of_another_class_with_the_same_fields_answers_the_same(tmp_path):
    own = dataclasses.make_dataclass("Own", [("drift", float, 0.0)], bases=(prefenvs.Teacher,), frozen=True)
    opened(tmp_path / "a.sqlite", "partial_return", teacher=prefenvs.Teacher(beta=2.0))
    opened(tmp_path / "a.sqlite", "partial_return", teacher=own(beta=2.0))
    with pytest.raises(prefenvs.RunMismatch, match=r"begun with no teacher\.drift, now it is 1.0"):
        opened(tmp_path / "a.sqlite", "partial_return", teacher=own(beta=2.0, drift=1.0))


@pytest.mark.parametrize("units", [None, Calibration(sd=3.0)])
def test_a_store_whose_settings_are_texts_and_plain_fields_goes_on(units, tmp_path):
    path, oracle = tmp_path / "a.sqlite", Hierarchical(margins=0.5)
    settings = {"teacher": "noisy", "calibration": units}
    opened(path, oracle, **settings)
    with sqlite3.connect(path) as connection:  # as it was first written
        kept = json.loads(connection.execute("SELECT config FROM runs").fetchone()[0])
        kept["oracle"] = described(oracle, "oracle")
        kept["teacher"] = dataclasses.asdict(make_teacher("noisy"))
        kept["calibration"] = units and dataclasses.asdict(units)
        connection.execute("UPDATE runs SET config = ?", [json.dumps(kept, sort_keys=True)])
    connection.close()
    opened(path, oracle, **settings)
    for changed in ({"teacher": "mistake"}, {"calibration": Calibration(sd=2.0)}):
        with pytest.raises(prefenvs.RunMismatch, match=f"begun with {next(iter(changed))} = "):
            opened(path, oracle, **{**settings, **changed})
    with pytest.raises(prefenvs.RunMismatch, match="begun with oracle = Hierarchical"):
        opened(path, Hierarchical(margins=0.4), **settings)


def test_settings_that_cannot_be_read_are_damage(tmp_path):
    path = tmp_path / "a.sqlite"
    opened(path, "partial_return")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET config = 'oracle'")
    connection.close()
    with pytest.raises(prefenvs.DamagedFile, match=r"settings of run 'run' in .* cannot be read"):
        opened(path, "partial_return")


class OwnValues:
    """Values that say where they come from."""

    gamma = 0.9

    def __init__(self, source):
        self.source, self.net = source, object()

    def v(self, observations):
        return observations[..., 0]


def test_a_store_goes_on_with_values_of_ones_own_and_is_refused_with_others(tmp_path):
    path = str(tmp_path / "a.sqlite")
    for _ in range(2):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues("run 1")))
    with pytest.raises(prefenvs.RunMismatch, match="run 2"):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues("run 2")))
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        values = TabularValues(np.zeros(5), np.zeros((5, 2)), 0.9)
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(values))
    with pytest.raises(TypeError, match=r"oracle\.values is a OwnValues, .* give it a text `source`"):
        pendulum(1, store=path, segments=0, oracle=DeterministicRegret(OwnValues(None)))


def test_a_drawings_size_and_defaults_spelt_out_are_no_other_settings(tmp_path):
    path = str(tmp_path / "a.sqlite")
    pendulum(1, store=path, segments=0)
    pendulum(1, store=path, segments=0, task_kwargs={"g": 10.0})
    path = str(tmp_path / "b.sqlite")
    for task_kwargs in ({}, {"width": 64, "height": 64}):
        prefenvs.feedback(gym.make("prefenvs/HalfCheetah-v0", store=path, task_kwargs=task_kwargs))


def test_a_store_goes_on_with_a_task_of_ones_own_functions_and_is_refused_with_another(tmp_path):
    def own(scorer, prompts):
        return prefenvs.feedback(
            gym.make("prefenvs/TextOwn-v0", prompts=prompts, scorer=scorer, store=str(tmp_path / "a.sqlite"))
        )

    def brief(prompts, completions):
        return [-len(text) for text in completions]

    many = tuple(f"{i}: " for i in range(1000))
    own(brief, many)
    own(wraps(brief)(lambda *texts: brief(*texts)), many)  # as in a new process: the same name, another object
    with pytest.raises(prefenvs.RunMismatch, match="was begun with") as refused:
        own(brief, many[1:])
    assert len(str(refused.value)) < 2000
    with pytest.raises(prefenvs.RunMismatch, match="was begun with"):
        own(len, many)


def test_a_damaged_store_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        pendulum(store=str(path))
    assert path.read_bytes() == b"not a database" * 100


def test_another_programs_database_is_no_store(tmp_path):
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
    with pytest.raises(prefenvs.DamagedFile, match="cannot be read as a store of answers"):
        pendulum(1, store=str(tmp_path / "a.sqlite"), segments=0)


def test_a_store_that_is_in_use_or_cannot_be_written_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.sqlite"
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))  # wait for nobody
    env, segments = pendulum(store=str(path))
    feedback, query = prefenvs.feedback(env), Query(segments)
    label = feedback.ask(query)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for question in (lambda: reopened(env), lambda: feedback.ask(query)):
        with pytest.raises(prefenvs.PrefenvsError, match=r"in use by another process.*database is locked") as raised:
            question()
        assert not isinstance(raised.value, prefenvs.DamagedFile)
    other.execute("ROLLBACK")
    feedback._store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(prefenvs.PrefenvsError, match=r"cannot be written.*readonly"):
        feedback.ask(query)
    feedback._store._connection.execute("PRAGMA query_only = 0")
    assert (feedback.asked, feedback._store.count()) == (len(label), len(label)), "nothing was spent"
    assert len(feedback.ask(query)) == len(label)
    with pytest.raises(prefenvs.PrefenvsError, match="unable to open"):
        pendulum(1, store=str(tmp_path), segments=0)


@pytest.mark.parametrize("left", [0.3, 0.7])
def test_a_store_that_was_cut_short_says_so(left, tmp_path):
    path = tmp_path / "a.sqlite"
    env, segments = pendulum(store=str(path), teacher="noisy")
    feedback = prefenvs.feedback(env)
    for _ in range(20):
        feedback.ask(Query(segments))
    feedback._store.close()
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    before = path.read_bytes()
    with pytest.raises(prefenvs.DamagedFile, match="left as it is"):
        reopened(env).ask(Query(segments))
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [3, 16, 310])
def test_a_damaged_answer_is_found(cut, tmp_path):
    env, segments = pendulum(store=str(tmp_path / "a.sqlite"))
    prefenvs.feedback(env).ask(Query(segments))
    again = reopened(env)
    with again._store._connection as connection:
        connection.execute("UPDATE batches SET answers = substr(answers, 1, length(answers) - ?)", [cut])
    with pytest.raises(prefenvs.DamagedFile, match="stored answer"):
        again.ask(Query(segments))
    assert again.asked == 0
