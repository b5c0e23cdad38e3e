"""What a policy of language is worth by the true reward, beside the reward it was trained on and its KL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from prefenvs.agents.evaluation import FIRST_SEED, EvalCallback, Evaluation, write_csv
from prefenvs.making import split_arguments
from prefenvs.tasks import TASKS
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.language import Language
from prefenvs.tasks.text.lm import completion_mask

CURVE = ("step", "gold", "proxy", "kl")
"""Columns of the over-optimisation curve: true reward, reward trained on, and KL to the reference in nats."""
SHOWN = 4
"""Completions that are kept to be read."""


@dataclass(frozen=True)
class TextEvaluation(Evaluation):
    """True rewards of completions, `mean` and `sd`, and what went with them."""

    split: str
    """Of the prompts: "test", or "train" where the task has no others."""
    proxy: float | None
    """Mean reward that is trained on; None where there is no such reward."""
    kl: float
    """Mean log pi/ref in nats, an estimate of KL(pi || ref)."""
    length: float
    """Mean number of tokens, the end counted."""
    train_mean: float
    """Mean true reward on the prompts that were trained on; `mean` where there are no others."""
    examples: tuple[tuple[str, str, float], ...]
    """Some prompts, completions and true rewards."""


def evaluate_text(learner: Any, env: str | None = None, completions: int = 512, **task: Any) -> TextEvaluation:
    """Complete prompts with the true reward shown. The same prompts and draws every time.

    Args:
        learner: of language models.
        env: id of a text task; by default the one that the learner's environments were made of.
        completions: how many; all prompts get as many, but for a remainder.
        **task: arguments of the task, as of `gym.make`. Those left out are the ones that the learner's environments
            were made with, where that is the same task: prompts, scorer and the like of TextOwn.

    Raises:
        ValueError: if the task has other words, prompts or lengths than the learner's, or none is named and the
            learner's environments do not say what they were made of. Nothing was judged.
    """
    language = learner.language
    split = "test" if language.test_prompts else "train"
    judge = partial(_judged, learner, *_task(learner, env, task), n=completions)
    prompts, tokens, rewards, success = judge(split)
    proxy = learner.proxy(prompts, tokens)
    texts = (
        (language.decode(prompts[row].cpu().numpy()), language.decode(tokens[row].cpu().numpy()), float(rewards[row]))
        for row in range(min(SHOWN, completions))
    )
    mask = completion_mask(tokens, language.eos, language.pad)
    return TextEvaluation(
        mean=float(rewards.mean()),
        sd=float(rewards.std()),
        episodes=completions,
        success=None if success is None else float(success.mean()),
        split=split,
        proxy=None if proxy is None else float(proxy.mean()),
        kl=float(learner.log_ratios(prompts, tokens).mean()),
        length=float(mask.sum(-1).float().mean()),
        train_mean=float((judge("train")[2] if split == "test" else rewards).mean()),
        examples=tuple(texts),
    )


def _task(learner: Any, env: str | None, task: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id of the task to judge by and its arguments, the learner's own where `task` names no others."""
    made = _spec(learner.envs)
    if made is None and env is None:
        raise ValueError(
            "the learner's environments have no spec, which tells what they were made of. Pass env=, the id of their "
            "task, with its arguments. Nothing was judged."
        )
    if made is None or (env is not None and env.rpartition(":")[2] != made.id):
        return str(env), dict(task)
    own, _ = split_arguments(TASKS[made.kwargs["task"]], made.kwargs.get("task_kwargs"), made.kwargs)
    return env or made.id, {**own, **task}


def _spec(envs: Any) -> EnvSpec | None:
    """What a batch of environments was made of, or the first of those it steps; None where neither tells."""
    spec: EnvSpec | None = envs.spec
    return envs.get_attr("spec")[0] if spec is None and hasattr(envs, "get_attr") else spec


def _judged(
    learner: Any, env: str, task: Mapping[str, Any], split: str, n: int
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray | None]:
    """Prompts (n, P) of a split, their completions (n, T), and the (n,) true reward and success of these."""
    ids = np.resize(learner.language.prompts(split), n)
    envs = gym.make_vec(env, num_envs=n, evaluation=True, **{**task, "view": "completion"})
    if other := _differences(language_of(envs), learner.language):
        envs.close()
        raise ValueError(
            f"{env} as it is made here has other {', '.join(other)} than the learner's task. Leave env out to "
            "judge by the learner's own task, or give the arguments that the learner's environments were made with. "
            "Nothing was judged."
        )
    envs.reset(seed=FIRST_SEED, options={"prompt_id": ids})
    prompts = torch.as_tensor(learner.language.prompt_tokens[ids], device=learner.device)
    tokens = learner.complete(prompts, torch.Generator().manual_seed(FIRST_SEED))
    _, rewards, _, _, infos = envs.step(tokens.cpu().numpy())
    envs.close()
    return prompts, tokens, rewards, infos.get("success")


def _differences(one: Language, other: Language) -> list[str]:
    """What of two languages differs, of all that prompts and completions are made of."""
    same = {
        "words": one.words == other.words,
        "prompts": np.array_equal(one.prompt_tokens, other.prompt_tokens),
        "test_prompts": one.test_prompts == other.test_prompts,
        "end or padding tokens": (one.eos, one.pad) == (other.eos, other.pad),
        "max_new_tokens": one.max_new_tokens == other.max_new_tokens,
    }
    return [name for name, equal in same.items() if not equal]


class TextEvalCallback(EvalCallback):
    """Logs true reward, proxy and KL every so many completions or pairs, and keeps the curve."""

    env: Any

    def __init__(
        self, env: str | None, every: int, completions: int = 256, folder: Path | None = None, **task: Any
    ) -> None:
        """Evaluate as `evaluate_text` does.

        Args:
            env: id of a text task; None for the one that the learner's environments were made of.
            every: completions or pairs between evaluations.
            completions: a time.
            folder: gets evaluations.csv and over_optimisation.csv, or None.
            **task: arguments of the task; see `evaluate_text`.
        """
        path = None if folder is None else folder / "evaluations.csv"
        super().__init__(env, every, completions, path)  # type: ignore[arg-type]
        self.folder, self.task = folder, task
        self.over_optimisation = np.zeros((0, len(CURVE)))
        """(evaluations, 4) with the columns of CURVE; the proxy is nan where there is none."""

    def evaluate(self, episodes: int | None = None) -> TextEvaluation:
        """Evaluate now."""
        found = evaluate_text(self.model, self.env, episodes or self.episodes, **self.task)
        self.curve = np.vstack([self.curve, [self.num_timesteps, found.mean, found.sd, found.episodes]])
        proxy = np.nan if found.proxy is None else found.proxy
        row = (self.num_timesteps, found.mean, proxy, found.kl)
        self.over_optimisation = np.vstack([self.over_optimisation, row])
        for name, value in zip(("true_return", "proxy", "kl"), row[1:], strict=True):
            self.logger.record(f"eval/{name}", value)
        if self.folder is not None:
            write_csv(self.folder / "evaluations.csv", ("step", "true_return", "sd", "episodes"), self.curve)
            write_csv(self.folder / "over_optimisation.csv", CURVE, self.over_optimisation)
        return found

    def rows(self) -> list[dict[str, float]]:
        """The curve as rows, in which `n` is the number of completions or pairs."""
        curve = self.over_optimisation.tolist()
        return [{"n": int(n), "kl": kl, "gold": gold, "proxy": proxy} for n, gold, proxy, kl in curve]

    def state(self) -> dict[str, np.ndarray]:
        """The curves so far."""
        return {"curve": self.curve, "over_optimisation": self.over_optimisation}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put the curves back."""
        self.curve, self.over_optimisation = state["curve"], state["over_optimisation"]
