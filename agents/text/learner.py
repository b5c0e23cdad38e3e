"""What every learner of language models is: SB3's surface around a policy, its reference and one optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import configure_logger, get_device
from torch import Tensor, nn

from prefenvs.agents.checkpoint import Arrays
from prefenvs.agents.reward_models.text.scalar import lean_copy
from prefenvs.agents.text.options import above, at_least
from prefenvs.agents.text.progress import ProgressBar
from prefenvs.agents.text.rewards import TextPreferenceConfig
from prefenvs.agents.text.rollouts import Written, prompts_of, write
from prefenvs.agents.text.saving import learner_state, load_learner_state, read_learner, save_learner
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.language import Language
from prefenvs.tasks.text.lm import in_parts, pretrain, sample_in_parts


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings that all learners of language models share."""

    learning_rate: float | str = 1e-4
    """Adam's; "lin_1e-3" falls linearly to 0 over the run."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    warmup: float = 0.0
    """Share of the run over which learning rates rise linearly to their value, before they stay or fall. The iteration
    that begins counts, so the first learns too."""
    forward_rows: int | None = None
    """Completions that are written or scored at a time where no gradient is taken, to bound memory; None for all of
    them. Draws do not depend on it, numbers but by rounding."""

    def __post_init__(self) -> None:
        above(self, max_grad_norm=0)
        at_least(self, forward_rows=1)
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup={self.warmup}, expected a share of the run in [0, 1).")


class TextLearner:
    """Base of the learners: subclasses say what one iteration of `learn` does, and what else they train.

    `num_timesteps` counts `unit`, what `learn(total)` is given in.
    """

    unit: ClassVar[str] = "completions"
    config_class: ClassVar[type[TextConfig]] = TextConfig

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        config: TextConfig | None = None,
        preferences: TextPreferenceConfig | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: torch.device | str = "auto",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        """Make a learner.

        Args:
            policy: "decoder", pre-trained on the task's demonstrations, or any LanguageModel, trained in place. What is
                frozen of it, as LoRA does, is shared with the reference and stays frozen.
            env: from `gym.make_vec("prefenvs/...", num_envs=N, view="completion")`: N completions a rollout.
            config: settings of the method, `config_class`.
            preferences: what to ask, and how to fit a reward to the answers where the method needs one.
            policy_kwargs: of `pretrain`: layers, width, steps and the like.
            seed: of everything drawn here; also of a "decoder".
            device: cpu, cuda or auto.
            tensorboard_log: folder of TensorBoard's logs, or None.
            verbose: 1 prints what is logged.

        Raises:
            TypeError: for an environment that does not write whole completions in batches, another kind of config, or a
                policy that is no LanguageModel.
            ValueError: for settings out of their range, or a policy with another end, padding or number of tokens than
                the task's language.
        """
        self.config = self.config_class() if config is None else config
        self.preferences = preferences or TextPreferenceConfig()
        if not isinstance(self.config, self.config_class):
            raise TypeError(f"config={config!r} is not a {self.config_class.__name__}.")
        for rate in self.learning_rates():
            _schedule(rate)  # refuses what is none, at once
        self.envs, self.language = _checked(env), language_of(env)
        self.device, self.seed, self.verbose = get_device(device), seed, verbose
        self.policy_kwargs = dict(policy_kwargs or {})
        if isinstance(policy, str) and policy != "decoder":
            raise ValueError(f"policy={policy!r} is not known. Expected 'decoder' or a LanguageModel.")
        model = pretrain(self.language, seed=seed, **self.policy_kwargs) if isinstance(policy, str) else policy
        check_language_model("policy", model, self.language)
        self.policy: Any = model.to(self.device)
        self.reference: Any = lean_copy(model).requires_grad_(False)
        """The policy at the beginning, which stays."""
        self.num_timesteps = 0
        self.tensorboard_log = tensorboard_log
        self._total_timesteps = 0
        self._logger: Logger | None = None
        self._prepared = False
        self._steps: dict[str, list[Tensor]] = {}
        self.rng = torch.Generator().manual_seed(seed)
        """Of prompts, completions and minibatches; on the CPU, so that they do not depend on the device."""
        self.predict_rng = torch.Generator().manual_seed(seed + 3)
        """Of what `predict` draws, which so changes nothing of what is learned."""
        self.optimizer = torch.optim.Adam(
            [{"params": [p for p in module.parameters() if p.requires_grad]} for module in self.trained().values()]
        )
        self.envs.reset(seed=seed)

    # What a subclass fills, in the order in which it is called; docs/text.md says when.

    def learning_rates(self) -> list[float | str]:
        """The learning rate of each of `trained()`. When it is first called there is `config`, and nothing else."""
        return [self.config.learning_rate]

    def trained(self) -> dict[str, nn.Module]:
        """The modules that the optimiser trains, the policy first. Called again, it gives the same modules."""
        return {"policy": self.policy}

    def begin(self) -> None:
        """Ask and fit what has to be there before the first iteration."""

    def next_size(self) -> int:
        """How much of `unit` the next iteration will count."""
        return int(self.envs.num_envs)

    def iterate(self) -> None:
        """Learn a little, and count it in `num_timesteps`."""
        raise NotImplementedError

    def own_settings(self) -> dict[str, Any]:
        """Further arguments of the constructor, as JSON."""
        return {"preferences": vars(self.preferences)}

    def unsaved_arguments(self) -> tuple[str, ...]:
        """Names of arguments of the constructor that were given and that a file does not hold."""
        return ()

    def own_state(self) -> Arrays:
        """What else changes as it learns, as named arrays."""
        return {}

    @classmethod
    def own_arguments(cls, own: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor from what `own_settings` gave."""
        return {**own, "preferences": TextPreferenceConfig(**own["preferences"])}

    def load_own_state(self, state: Arrays) -> None:
        """Put back what `own_state` gave."""

    # SB3's surface.

    @property
    def logger(self) -> Logger:
        """Where `learn` writes; TensorBoard's too if `tensorboard_log` is set."""
        assert self._logger is not None, "the logger is made by learn(), or given by set_logger()"
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Log there in place of the default."""
        self._logger = logger

    def get_env(self) -> Any:
        """The batch of environments."""
        return self.envs

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int = 1,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train until `total_timesteps` more of `unit` are counted; in whole iterations.

        Args:
            total_timesteps: in `unit`.
            callback: SB3's callbacks, which see each iteration as a step, a list of them or a function.
            log_interval: iterations between writings of the log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: count from 0; False goes on, and so does a learning rate that falls.
            progress_bar: show one.
        """
        self.num_timesteps = 0 if reset_num_timesteps else self.num_timesteps
        self._total_timesteps = self.num_timesteps + total_timesteps
        if self._logger is None:
            silent = not self.verbose and self.tensorboard_log is None  # where SB3 would leave an empty folder
            logger = (self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps)
            self._logger = Logger(None, []) if silent else configure_logger(*logger)
        parts = [_as_callback(callback), *([ProgressBar()] if progress_bar else [])]
        calls = CallbackList([part for part in parts if part is not None])
        calls.init_callback(self)  # type: ignore[arg-type]
        calls.on_training_start(locals(), globals())
        self.prepare()
        iteration, going = 0, True
        while going and self.num_timesteps < self._total_timesteps:
            calls.on_rollout_start()
            self._set_learning_rate()
            self.iterate()
            self._log_steps()
            iteration += 1
            calls.update_locals(locals())
            going = calls.on_step()
            calls.on_rollout_end()
            if iteration % log_interval == 0:
                self.logger.record(f"time/{self.unit}", self.num_timesteps)
                self.logger.dump(self.num_timesteps)
        calls.on_training_end()
        return self

    def prepare(self) -> None:
        """Ask and fit what has to be there before the first iteration; `learn` does it. A second call does nothing."""
        if not self._prepared:
            self.begin()
            self._prepared = True

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Complete what a reset shows, one observation or a batch; `deterministic` takes the likeliest tokens.

        Returns:
            (T,) or (n, T) completions, and None.
        """
        shown = prompts_of(observation, self.language)
        prompts = torch.as_tensor(shown if shown.ndim == 2 else shown[None], device=self.device)
        tokens = self.complete(prompts, self.predict_rng, deterministic=deterministic).cpu().numpy()
        return (tokens if shown.ndim == 2 else tokens[0]), None

    def complete(self, prompts: Tensor, rng: torch.Generator, *, deterministic: bool = False) -> Tensor:
        """(n, T) completions of prompts (n, P)."""
        return self.sample(self.policy, prompts, rng, temperature=0.0 if deterministic else 1.0)

    def proxy(self, prompts: Tensor, completions: Tensor) -> Tensor | None:
        """(n,) reward of completions (n, T) that this learner is trained on; None where there is none."""
        return None

    @torch.no_grad()
    def log_ratios(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n,) log pi/ref in nats of completions (n, T) that this learner wrote; their mean estimates the KL."""
        policy, reference = (
            self.in_parts(model.logprobs, prompts, completions) for model in (self.policy, self.reference)
        )
        return (policy - reference).sum(-1)

    def save(self, path: str | Path) -> None:
        """Write a zip of JSON and safetensors: settings, policy, reference, optimiser and generators."""
        save_learner(self, path)

    @classmethod
    def load(
        cls, path: str | Path, env: Any, *, policy: Any = None, device: torch.device | str = "auto", **changes: Any
    ) -> Self:
        """Read what `save` wrote.

        Args:
            path: the zip.
            env: to go on learning in, or to say what the words are.
            policy: a LanguageModel of the same architecture, where it was trained with one of your own. What was frozen
                is frozen of it, and the rest learns.
            device: cpu, cuda or auto.
            **changes: arguments of the constructor in place of the saved ones, and those that JSON lacks.

        Raises:
            DamagedFile: if the file cannot be read.
            RunMismatch: if it holds another kind of agent, or weights that do not fit.
            ValueError: if it was trained with a LanguageModel, a reward or a guide of your own that is missing.
        """
        made, arguments, arrays = read_learner(cls, path, policy, changes)
        learner = cls(made, env, device=device, **{**arguments, **changes})
        learner.load_state(arrays)
        return learner

    # Resuming.

    def state(self) -> Arrays:
        """Everything that a resumed run needs, as named arrays."""
        return learner_state(self)

    def load_state(self, state: Arrays) -> None:
        """Put back what `state` gave.

        Raises:
            RunMismatch: if it belongs to other networks, or to others of their weights.
        """
        load_learner_state(self, state)

    # What subclasses are made of.

    def move(self, *parts: Any) -> None:
        """Move those of the parts that are modules to the learner's device."""
        for part in parts:
            if isinstance(part, nn.Module):
                part.to(self.device)

    def write(
        self,
        prompt_ids: np.ndarray,
        policy: Any = None,
        rng: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Written:
        """Complete prompts (N,) in the environments, with the policy of this learner unless another is given."""
        rows = self.config.forward_rows
        return write(self.envs, self.language, policy or self.policy, prompt_ids, rng or self.rng, temperature, rows)

    def sample(self, policy: Any, prompts: Tensor, rng: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(n, T) completions of prompts (n, P) by a policy, `forward_rows` at a time."""
        length, rows = self.language.max_new_tokens, self.config.forward_rows
        return sample_in_parts(policy, prompts, length, rng, temperature, rows).tokens

    def in_parts(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """(n, ...) what `function` makes of tensors (n, ...), `forward_rows` at a time."""
        return in_parts(function, self.config.forward_rows, *tensors)

    @property
    def trunk(self) -> Any:
        """The reference as reward models start from it: what learns of the policy alone is to learn of their copies."""
        learns = {name: parameter.requires_grad for name, parameter in self.policy.named_parameters()}
        if all(learns.values()) or not any(learns.values()):
            return self.reference  # all of which learns in their copies
        kept = {id(p): p for name, p in self.reference.named_parameters() if not learns[name]}
        trunk = copy.deepcopy(self.reference, kept)
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(learns[name])
        return trunk

    def groups(self, size: int) -> int:
        """How many groups of `size` completions a rollout has.

        Raises:
            ValueError: if the number of environments is no multiple of `size`.
        """
        count, rest = divmod(self.envs.num_envs, size)
        if rest:
            raise ValueError(
                f"num_envs={self.envs.num_envs} completions a rollout are no whole groups of {size}. "
                "Make the environments with a multiple."
            )
        return count

    def draw_prompts(self, group: int, rng: torch.Generator | None = None) -> np.ndarray:
        """(N,) numbers of prompts of the split "train", each `group` times in a row."""
        known = self.language.prompts("train")
        drawn = torch.randint(len(known), (self.groups(group),), generator=rng or self.rng)
        return np.repeat(known[drawn.numpy()], group)

    def descend(self, loss: Tensor) -> Tensor:
        """One step of the optimiser; returns the () length of the gradient before it was shortened."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        self.optimizer.step()
        return norm

    def record_step(self, **values: Tensor) -> None:
        """Keep () tensors of a gradient step; their means are logged, under train/, at the end of the iteration."""
        for name, value in values.items():
            self._steps.setdefault(name, []).append(value.detach().float())

    def _log_steps(self) -> None:
        if self._steps:
            means = torch.stack([torch.stack(values).mean() for values in self._steps.values()])
            for name, mean in zip(self._steps, means.tolist(), strict=True):  # the one wait for the device
                self.logger.record_mean(f"train/{name}", mean)
            self._steps = {}

    def _set_learning_rate(self) -> None:
        total, warmup = self._total_timesteps, self.config.warmup
        done, begun = self.num_timesteps / total, (self.num_timesteps + self.next_size()) / total
        for group, given in zip(self.optimizer.param_groups, self.learning_rates(), strict=True):
            rate, falls = _schedule(given)
            if done < warmup:
                group["lr"] = rate * min(1.0, begun / warmup)
            else:
                group["lr"] = rate * (1.0 - done) / (1.0 - warmup) if falls else rate
        self.logger.record("train/learning_rate", self.optimizer.param_groups[0]["lr"])


def _checked(env: Any) -> Any:
    """The batch of environments, refused where it does not write whole completions."""
    envs = gym.make_vec(env, num_envs=64, view="completion") if isinstance(env, str) else env
    space = getattr(envs, "single_action_space", None)
    if not isinstance(space, gym.spaces.MultiDiscrete):
        raise TypeError(
            f"{env} does not write whole completions in batches. Make it with "
            'gym.make_vec("prefenvs/TextEnum-v0", num_envs=64, view="completion"); prefenvs.register gives a task of '
            "your own such an id."
        )
    return envs


def _schedule(rate: float | str) -> tuple[float, bool]:
    """A learning rate, and whether it falls to 0.

    Raises:
        ValueError: for what is neither a number nor "lin_" and one.
    """
    falls, number = isinstance(rate, str), str(rate)
    if falls:
        number = number.removeprefix("lin_") if number.startswith("lin_") else "nan"
    try:
        found = float(number)
    except ValueError:
        found = math.nan
    if not 0.0 <= found < math.inf:
        raise ValueError(f'learning rate {rate!r}, expected a number of at least 0, or "lin_1e-3" for one that falls.')
    return found, falls


def check_language_model(argument: str, model: Any, language: Language) -> None:
    """Refuse a model that cannot write and score the task's language, before anything is asked.

    Args:
        argument: that the model was given as.
        model: to check.
        language: of the task.

    Raises:
        TypeError: if it is no LanguageModel.
        ValueError: if its end, padding or number of tokens is not the language's.
    """
    facts = {name: getattr(language, name) for name in ("eos", "pad", "vocab_size")}
    made = f"TransformersModel(model, {', '.join(f'{name}={value}' for name, value in facts.items())})"
    lacks = [name for name in ("sample", "logprobs", *facts) if not hasattr(model, name)]
    if lacks:
        raise TypeError(
            f"{argument} is a {type(model).__name__}, expected a LanguageModel: it has no {', '.join(lacks)}. A causal "
            f"language model of transformers becomes one by {made}."
        )
    other = [name for name, value in facts.items() if getattr(model, name) != value]
    if other:
        raise ValueError(
            f"{argument} has {', '.join(f'{name}={getattr(model, name)}' for name in other)}, expected "
            f"{', '.join(f'{name}={facts[name]}' for name in other)} as the task's language has. Make it with these, "
            f"for a model of transformers by {made}."
        )


def _as_callback(callback: Any) -> BaseCallback | None:
    if isinstance(callback, list):
        return CallbackList(callback)
    return callback if callback is None or isinstance(callback, BaseCallback) else ConvertCallback(callback)
