"""Makes docs/tasks.md, the page of all tasks: `python -m prefenvs.tasks.catalogue`; with --draw also its pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from prefenvs.tasks import TASKS
from prefenvs.tasks.control import CONTROL_TASKS
from prefenvs.tasks.grid import GRID_TASKS
from prefenvs.tasks.task import Score, TaskSpec
from prefenvs.tasks.text import TEXT_TASKS, language_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIDE, STEPS = 128, 25
"""Pixels a picture is at most wide and high, and random steps before it is taken."""

HEAD = """# Tasks

Each is made by `gym.make` under its id, with the arguments of the README; `gym.make_vec` and `prefenvs.sb3_vec` make
batches. Scores are mean true returns an episode: of random actions (100 episodes, or exact) and of a reference, with
its source. The true reward is made of the factors named, the most important first. Made by
`python -m prefenvs.tasks.catalogue`.
"""
FAMILIES: tuple[tuple[str, str, tuple[TaskSpec, ...]], ...] = (
    (
        "Control",
        "Classic control and MuJoCo tasks are Gymnasium's, with their rewards and default arguments.",
        tuple(spec for spec in CONTROL_TASKS if spec.extra is None),
    ),
    (
        "DeepMind Control Suite",
        'Needs the extra `dmc`: `pip install "prefenvs[dmc]"`, Python 3.11 or 3.12.',
        tuple(spec for spec in CONTROL_TASKS if spec.extra == "dmc"),
    ),
    ("Grids", "Finite problems whose values, regrets and optimal policies are exact.", GRID_TASKS),
)
TEXT_HEAD = """
## Text

An episode writes one completion. The view "token" is an action a token; with `view="completion"` an action is a whole
completion. The example is a prompt and, after the arrow, a demonstration of the task's own.
"""


def page() -> str:
    """The page, as markdown."""
    parts = [HEAD]
    for title, about, specs in FAMILIES:
        parts.append(f"\n## {title}\n\n{about}\n")
        parts.append(
            _table(("", "id", "observation", "action", "steps", "factors", "random", "reference"), specs, _row)
        )
    parts.append(TEXT_HEAD)
    parts.append(_table(("id", "words", "factors", "random", "reference", "example"), TEXT_TASKS, _text_row))
    return "\n".join(parts)


def draw(name: str) -> np.ndarray:
    """(h, w, 3) uint8 picture of a task after some random steps, at most SIDE wide and high."""
    env = gym.make(TASKS[name].id, render_mode="rgb_array", evaluation=True)
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(STEPS):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    image: Any = env.render()
    env.close()
    stride = -(-max(image.shape[:2]) // SIDE)
    rows, columns = (size // stride * stride for size in image.shape[:2])
    blocks = image[:rows, :columns].reshape(rows // stride, stride, columns // stride, stride, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def _table(columns: Iterable[str], specs: Iterable[TaskSpec], row: Any) -> str:
    names = list(columns)
    lines = [names, ["---"] * len(names), *(row(spec) for spec in specs)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _row(spec: TaskSpec) -> list[str]:
    env = gym.make(spec.id, evaluation=True)
    observation, action = _space(env.observation_space), _space(env.action_space)
    env.close()
    picture = f"![{spec.name}](tasks/{spec.name}.png)"
    known = (str(spec.horizon), ", ".join(spec.factors), _score(spec.random_score), _score(spec.reference_score, True))
    return [picture, f"`{spec.id}`", observation, action, *known]


def _text_row(spec: TaskSpec) -> list[str]:
    language = language_of(spec.name)
    prompts, completions = language.demonstrate(1, np.random.default_rng(0))
    prompt, answer = language.decode(language.prompt_tokens[prompts[0]]), language.decode(completions[0])
    example = f"`{prompt}` → `{answer}`".replace("|", "\\|")
    known = (", ".join(spec.factors), _score(spec.random_score), _score(spec.reference_score, True))
    return [f"`{spec.id}`", str(language.vocab_size), *known, example]


def _space(space: gym.Space[Any]) -> str:
    if isinstance(space, gym.spaces.Discrete):
        return f"one of {space.n}"
    if isinstance(space, gym.spaces.Box):
        size = int(np.prod(space.shape))
        return f"{size} number{'s' if size > 1 else ''}"
    return str(space)


def _score(score: Score | None, with_source: bool = False) -> str:
    if score is None:
        return ""
    spread = "" if score.sd is None else f" ± {score.sd:.1f}"
    return f"{score.mean:.1f}{spread}" + (f"<br><sub>{score.source}</sub>" if with_source else "")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw the pictures anew, too")
    if parser.parse_args().draw:
        import imageio.v3 as imageio

        (DOCS / "tasks").mkdir(exist_ok=True)
        for spec in (*CONTROL_TASKS, *GRID_TASKS):
            imageio.imwrite(DOCS / "tasks" / f"{spec.name}.png", draw(spec.name))
    (DOCS / "tasks.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
