import base64
import json
import re
from html.parser import HTMLParser

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest

import prefenvs
from prefenvs.error import DamagedFile, SegmentForgotten
from prefenvs.report import save_clips, write_report
from prefenvs.report.charts import Series, line_chart, number, ticks
from prefenvs.report.read import bootstrap_interval, common_curve, group_arms, read_run
from prefenvs.segments import Label, Query, Segments

CURVE = ((0, -200.0), (1000, 40.0), (2000, 130.0))


def make_run(folder, *, seed=0, agent="pebble", curve=CURVE, final=150.0, **changes):
    """A run folder as `prefenvs train` leaves it."""
    folder.mkdir(parents=True)
    config = {"task": "HalfCheetah", "agent": agent, "seed": seed, "total_steps": 2000, "budget": 40}
    config |= {"command": "prefenvs train --seed 0", "versions": {"torch": "2.8"}} | changes
    (folder / "config.json").write_text(json.dumps(config))
    rows = "".join(f"{step},{value},10,5\n" for step, value in curve)
    (folder / "evaluations.csv").write_text(f"step,true_return,sd,episodes\n{rows}")
    result = {"final": final, "sd": 12.0, "door": "evaluation", "episodes": 20, "deterministic": True}
    result |= {"selected": "last", "seconds": 90.0, "random": -250.0}
    if agent == "pebble":
        header = "step,asked,answered,loss,accuracy,held_out_accuracy,epochs\n"
        (folder / "sessions.csv").write_text(f"{header}500,20,18,0.6,0.9,nan,7\n1500,40,37,0.5,0.95,0.75,5\n")
        result |= {"asked": 40, "answered": 37, "accuracy": 0.95, "held_out_accuracy": 0.75}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


class Page(HTMLParser):
    """What a reader of the page meets."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "polygon", "polyline"})

    def __init__(self, path):
        super().__init__()
        self.source, self.text, self.tags, self.open = path.read_text(encoding="utf-8"), "", [], []
        self.feed(self.source)
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag, style=""):
        return [a for t, a in self.tags if t == tag and style in (a.get("class") or "")]


def report(*folders):
    return Page(write_report(*folders))


def test_a_run_becomes_a_page_with_its_figures_and_values(tmp_path):
    page = report(make_run(tmp_path / "run"))
    charts = page.all("svg", "chart")
    assert len(charts) == 3  # true return, labels, accuracy
    assert all(chart["role"] == "img" for chart in charts)
    titles = {a["id"] for a in page.all("title") if "id" in a}
    assert {chart["aria-labelledby"] for chart in charts} == titles
    for text in ("PEBBLE learned HalfCheetah from 37 answered labels", "true return 150", "random play −250"):
        assert text in page.text
    for text in ("37 of 40", "75%", "prefenvs train --seed 0", '"torch": "2.8"', "evaluation door, last model"):
        assert text in page.text
    for text in ("environment steps", "true return (reward an episode)", "labels so far (queries)"):
        assert text in page.text
    assert "± sd between 5 episodes" in page.text
    assert "Clips not recorded" in page.text


def test_what_a_learner_counts_is_what_its_charts_count(tmp_path):
    folder = make_run(tmp_path / "run", agent="grpo")
    result = json.loads((folder / "result.json").read_text())
    (folder / "sessions.csv").write_text(
        "step,asked,answered,loss,accuracy,held_out_accuracy,epochs\n0,9,9,0.1,1,1,3\n"
    )
    (folder / "result.json").write_text(json.dumps({**result, "unit": "completions"}))
    page = report(folder)
    assert page.source.count(">completions</text>") == 3  # true return, labels, accuracy
    assert "True return an episode against completions." in page.text
    assert "environment steps" not in page.text
    assert ">completions or environment steps</text>" in report(folder, make_run(tmp_path / "other")).source
    (folder / "result.json").unlink()  # which says so
    assert report(folder).source.count(">steps</text>") == 3


def test_the_page_asks_nothing_of_the_network_and_runs_no_script(tmp_path):
    page = report(make_run(tmp_path / "run"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.source)
    assert not page.all("script")
    assert not page.all("link")


def test_text_from_a_run_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>&amp;$body'
    page = report(make_run(tmp_path / "run", task=evil, oracle=evil, command=evil))
    assert not page.all("script")
    assert evil in page.text


def test_several_seeds_and_arms_share_a_page(tmp_path):
    pebble = [make_run(tmp_path / f"p{s}", seed=s, final=100.0 + s) for s in range(3)]
    sac = [make_run(tmp_path / f"s{s}", seed=s, agent="sac", final=450.0) for s in range(2)]
    page = report(*sac, *pebble)
    assert len(page.all("polygon", "band")) == 2
    assert "mean of 3 seeds, band 95% bootstrap interval" in page.text
    assert "preferences (PEBBLE)" in page.text
    assert "true reward (SAC)" in page.text
    # (101 - -250) / (450 - -250) = 0.501
    assert "50% of the way from random play" in page.text


def test_a_recorded_reference_is_marked_as_such(tmp_path):
    folder = make_run(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "true_reward": {"score": 550.0, "recorded": True}}))
    page = report(folder)
    assert "Learning on the true reward (recorded earlier, not in this run) reaches 550" in page.text
    assert len(page.all("line", "level")) == 2 + 1 + 3  # two levels, chance, and their swatches


def test_arms_that_differ_in_a_setting_are_told_apart(tmp_path):
    runs = [read_run(make_run(tmp_path / f"{b}", budget=b)) for b in (40, 80)]
    assert [arm.label for arm in group_arms(runs)] == [
        "preferences (PEBBLE, budget 40)",
        "preferences (PEBBLE, budget 80)",
    ]


def test_an_arm_of_the_default_loss_is_told_from_one_of_another(tmp_path):
    default = make_run(tmp_path / "default", agent="dpo")
    other = make_run(tmp_path / "other", agent="dpo", loss="ipo")
    assert [arm.label for arm in group_arms([read_run(default), read_run(other)])] == [
        "preferences (dpo, loss dpo)",
        "preferences (dpo, loss ipo)",
    ]


def test_a_run_that_did_not_learn_is_not_called_a_success(tmp_path):
    assert "did not clearly beat random play" in report(make_run(tmp_path / "run", final=-249.0)).text


def test_an_unfinished_run_says_what_is_not_recorded(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "result.json").unlink()
    (folder / "sessions.csv").unlink()
    page = report(folder)
    assert "is not finished. The last evaluation was at step 2,000 of 2,000" in page.text
    assert "Sessions not recorded" in page.text
    (folder / "evaluations.csv").unlink()
    assert "Curve not recorded" in report(folder).text


def test_identical_seeds_have_a_band_of_no_width(tmp_path):
    values = np.repeat(np.array([[0.1, 1 / 3, 1e6 + 0.7]]), 5, axis=0)
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    np.testing.assert_array_equal(low, values[0])
    np.testing.assert_array_equal(high, values[0])


def test_the_bootstrap_of_the_mean_agrees_with_the_normal_law():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(200, 1))
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    half = 1.96 * values.std() / np.sqrt(200)
    np.testing.assert_allclose([low[0], high[0]], [values.mean() - half, values.mean() + half], atol=0.03)


def test_seeds_with_other_steps_meet_where_all_have_been():
    first = {"step": np.array([0.0, 10.0, 20.0]), "y": np.array([0.0, 1.0, 2.0])}
    second = {"step": np.array([0.0, 15.0]), "y": np.array([0.0, 3.0])}
    steps, values = common_curve([first, second], "y")
    np.testing.assert_array_equal(steps, [0, 10])
    np.testing.assert_allclose(values, [[0, 1], [0, 2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the header step,true_return,sd,episodes"),
        ("step,true_return\n0,1\n", "line 1: expected the header"),
        ("step,true_return,sd,episodes\n0,1,2,5\n100,3", "line 3: expected 4 numbers .* got '100,3'. Mend or remove"),
        ("step,true_return,sd,episodes\n0,1,2,5\n80000", "line 3: expected 4 numbers .* got '80000'"),
        ("step,true_return,sd,episodes\n0,one,2,5\n", "line 2: expected 4 numbers"),
        ("step,true_return,sd,episodes\n0,nan,2,5\n", "line 2: true_return must be finite"),
        ("step,true_return,sd,episodes\n5,1,2,5\n5,1,2,5\n", "line 3: step 5 does not come after 5"),
    ],
)
def test_a_damaged_table_is_named_with_its_line(tmp_path, text, message):
    folder = make_run(tmp_path / "run")
    (folder / "evaluations.csv").write_text(text)
    with pytest.raises(DamagedFile, match=message):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_damaged_json_is_named(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "result.json").write_text('{"final": 1')
    with pytest.raises(DamagedFile, match=r"result\.json cannot be read as JSON"):
        write_report(folder)
    (folder / "config.json").write_text('{"task": "HalfCheetah"}')
    with pytest.raises(DamagedFile, match="lacks agent, seed, total_steps"):
        write_report(folder)


def test_what_is_no_run_folder_is_refused_with_a_hint(tmp_path):
    make_run(tmp_path / "pebble-0")
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config\.json.*name them: pebble-0"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="no run folder was given"):
        write_report()


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    first = make_run(tmp_path / "a")
    with pytest.raises(ValueError, match="same settings with the same seed 0"):
        write_report(first, make_run(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"2 tasks \(HalfCheetah, Hopper\), expected one"):
        write_report(first, make_run(tmp_path / "c", task="Hopper"))


def test_ticks_are_round_and_inside():
    assert ticks(-3.0, 103.0) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.0, 1.0, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_number_keeps_the_digits_that_matter():
    assert [number(v) for v in (1234.5, 45.67, 0.1234, -3.0, float("nan"))] == [
        "1,234",
        "45.7",
        "0.123",
        "−3",
        "not recorded",
    ]


def test_a_chart_of_one_point_or_none_is_drawn():
    for x in ([5.0], []):
        chart = line_chart(
            [Series("s", np.array(x), np.array(x))], name="n", description="d", x_label="x (m)", y_label="y (s)"
        )
        assert chart.count("<circle") == len(x)
        assert "nan" not in chart


def save_gif(path):
    imageio.imwrite(path, np.zeros((2, 4, 4, 3), np.uint8), extension=".gif")
    return base64.b64encode(path.read_bytes()).decode()


def test_clips_are_embedded_side_by_side_with_the_answer(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "clips").mkdir()
    data = [save_gif(folder / "clips" / f"query-000-{letter}.gif") for letter in "ab"]
    entry = {"a": "query-000-a.gif", "b": "query-000-b.gif", "answer": "b"}
    (folder / "clips" / "clips.json").write_text(json.dumps([entry]))
    page = report(folder)
    assert [image["src"] for image in page.all("img")] == [f"data:image/gif;base64,{d}" for d in data]
    assert all("the teacher preferred b" in image["alt"] for image in page.all("img"))
    assert [a["class"] for a in page.all("div", "clip")] == ["clip", "clip preferred"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"a": "a.gif", "answer": "a"}, "entry 0 is"),
        ({"a": "../config.json", "b": "b.gif", "answer": "a"}, "expected a file in the same folder"),
        ({"a": "gone.gif", "b": "b.gif", "answer": "a"}, "cannot be read"),
        ({"a": "clips.json", "b": "b.gif", "answer": "a"}, "is not a GIF"),
    ],
)
def test_damaged_clips_are_named(tmp_path, entry, message):
    folder = make_run(tmp_path / "run")
    (folder / "clips").mkdir()
    (folder / "clips" / "clips.json").write_text(json.dumps([entry]))
    with pytest.raises(DamagedFile, match=message):
        write_report(folder)


class Drawn(gym.Env):
    """Five steps of a picture that gets brighter."""

    observation_space = gym.spaces.Box(0, 10, (1,))
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    broken = False

    def __init__(self):
        self.render_mode, self.t = "rgb_array", 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), float(action), False, False, {}

    def render(self):
        if self.broken:
            raise AttributeError("'NoneType' object has no attribute 'glGetError'")
        return np.full((500, 300, 3), 40 * self.t, np.uint8)

    def get_state(self):
        return {"t": np.array(self.t)}

    def set_state(self, state):
        self.t = int(state["t"])


@pytest.fixture
def asked():
    """An environment, three questions about it and their answers: the second, a tie, a skip."""
    env = prefenvs.wrap(Drawn(), budget=10)
    prefenvs.feedback(env)
    _, info = env.reset(seed=0)
    for _ in range(5):
        env.step(1)
    stream, episode, _ = info["segment_id"]
    ids = np.array([[max(stream, 0), episode, first] for first in (0, 1) * 3], np.int64)
    flags = np.zeros(6, bool)
    segments = Segments(
        np.zeros((6, 5, 1), np.float32), np.zeros((6, 4), np.int64), np.ones((6, 4), bool), flags, flags, ids
    )
    return env, Query(segments), Label(np.array([[0.0, 1.0], [0.5, 0.5], [np.nan, np.nan]]))


def test_save_clips_draws_what_was_asked(tmp_path, asked):
    entries = save_clips(*asked, tmp_path / "clips", limit=3)
    assert [entry["answer"] for entry in entries] == ["b", "tie", "skip"]
    assert json.loads((tmp_path / "clips" / "clips.json").read_text()) == entries
    frames = imageio.imread(tmp_path / "clips" / entries[0]["b"])
    assert frames.shape == (2, 167, 100, 3)  # every second of 4 steps, every third pixel
    assert frames[:, 0, 0, 0].tolist() == [40, 120]
    make_run(tmp_path / "run")
    (tmp_path / "clips").rename(tmp_path / "run" / "clips")
    assert len(report(tmp_path / "run").all("img")) == 6


def test_save_clips_draws_no_more_than_the_limit(tmp_path, asked):
    assert len(save_clips(*asked, tmp_path, limit=1)) == 1
    assert len(list(tmp_path.glob("*.gif"))) == 2


def test_a_machine_that_cannot_draw_gets_one_warning(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(Drawn, "broken", True)
    with pytest.warns(UserWarning, match="libosmesa6 or libegl1.*MUJOCO_GL") as warned:
        assert save_clips(*asked, tmp_path / "clips") == []
    assert len(warned) == 1
    assert not (tmp_path / "clips").exists()


def test_save_clips_refuses_what_does_not_fit(tmp_path, asked):
    env, query, label = asked
    with pytest.raises(ValueError, match="label has 1 answers, expected one a question: 3"):
        save_clips(env, query, label[:1], tmp_path)
    query.segments.ids[:, 1] = 99
    with pytest.raises(SegmentForgotten):
        save_clips(env, query, label, tmp_path)
