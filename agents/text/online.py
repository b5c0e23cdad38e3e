"""The one loop of the online methods: write completions, score them, turn scores into targets, take gradient steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from prefenvs.agents.checkpoint import Arrays, module_state, under
from prefenvs.agents.reward_models.text import (
    TEXT_REWARD_MODELS,
    References,
    TransformedReward,
    TransformedSteps,
    WinRate,
)
from prefenvs.agents.reward_transforms import OF_MEMBERS, OF_STEPS, REWARD_TRANSFORMS, RewardContext, RunningRewards
from prefenvs.agents.text.advantages import penalised_rewards
from prefenvs.agents.text.kl_control import adaptive_kl, adaptive_kl_per_batch
from prefenvs.agents.text.learner import TextConfig, TextLearner
from prefenvs.agents.text.options import above, at_least, check_options
from prefenvs.agents.text.preference_pairs import ask_pairs
from prefenvs.agents.text.rewards import (
    OneMember,
    Reward,
    learn_reward,
    restored_reward_model,
    true_reward,
    untrained_reward_model,
)
from prefenvs.error import unknown_name
from prefenvs.vector_env import EvaluationVectorEnv

CONTROLLERS = ("fixed", "adaptive", "adaptive_per_batch")
"""How beta follows the KL: not at all, Ziegler et al. 2019 (a completion), Ramamurthy et al. 2022 (a batch)."""


@dataclass(frozen=True, kw_only=True)
class OnlineConfig(TextConfig):
    """Settings that all online methods share."""

    beta: float = 0.05
    """Weight of the KL to the reference, in units of reward a nat."""
    group: int = 4
    """Completions of a prompt in a rollout; the environments are a multiple of it."""
    epochs: int = 1
    """Passes over a rollout."""
    batch_size: int | None = None
    """Completions a gradient step, in whole groups; None for the whole rollout."""
    temperature: float = 1.0
    """Divides the logits of what is trained: rollouts are drawn and scored by it, under the reference too. `predict`
    and evaluation draw at 1."""
    kl_controller: str = "fixed"
    """fixed, adaptive or adaptive_per_batch."""
    kl_target: float = 6.0
    """KL in nats a completion that the adaptive controllers hold."""
    kl_horizon: int = 10_000
    """Completions over which "adaptive" acts."""
    aggregate: str = "mean"
    """How members of a reward ensemble become one number, a name in OF_MEMBERS of `reward_transforms`."""
    transform: str = "identity"
    """How the reward is shaped, a name in REWARD_TRANSFORMS; one in OF_STEPS takes a process reward step by step."""
    transform_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the transform."""
    aggregate_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the aggregate."""
    references: int = 0
    """Completions of the reference a prompt whose rewards the transform compares with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, beta=0, group=1, epochs=1, batch_size=1, references=0)
        above(self, temperature=0, kl_target=0, kl_horizon=0)
        if self.batch_size is not None and self.batch_size % self.group:
            raise ValueError(
                f"batch_size={self.batch_size} completions are no whole groups of {self.group}: expected a multiple "
                "of group."
            )
        if self.kl_controller not in CONTROLLERS:
            raise unknown_name("kl_controller", self.kl_controller, CONTROLLERS)
        for field_name, known in (("transform", set(REWARD_TRANSFORMS) - OF_MEMBERS), ("aggregate", OF_MEMBERS)):
            name = getattr(self, field_name)
            if name not in known:
                raise unknown_name(field_name, name, known)
            options, reader = f"{field_name}_options", f"{field_name}={name!r}"
            supplied = ("mask",) if name in OF_STEPS else ()
            function = REWARD_TRANSFORMS[name]
            check_options(options, getattr(self, options), function, reader, positional=2, supplied=supplied)


@dataclass(frozen=True, eq=False)
class Experience:
    """n completions with all that the losses read; rows of one group stand together."""

    prompts: Tensor
    """(n, P) int64."""
    tokens: Tensor
    """(n, T) int64."""
    mask: Tensor
    """(n, T) bool."""
    logps: Tensor
    """(n, T) log-probability of each token in nats under the policy that wrote it; 0 on padding."""
    reference_logps: Tensor
    """(n, T) the same under the reference."""
    proxy: Tensor
    """(n,) reward before shaping."""
    rewards: Tensor
    """(n,) reward to learn from."""
    token_rewards: Tensor | None = None
    """(n, T) the same at the tokens that earn it, where steps are rewarded; None where the last token earns all."""
    targets: dict[str, Tensor] = field(default_factory=dict)
    """(n, ...) what the method made of it."""

    def __getitem__(self, rows: Tensor) -> Experience:
        parts = {name: value[rows] for name, value in vars(self).items() if torch.is_tensor(value)}
        return Experience(**parts, targets={name: value[rows] for name, value in self.targets.items()})

    def sequence_rewards(self, beta: float) -> Tensor:
        """(n,) reward less beta log pi/ref of the whole completion, by `penalised_rewards`."""
        return penalised_rewards(self.rewards, self.logps.sum(-1), self.reference_logps.sum(-1), beta=beta)


class OnlineLearner(TextLearner):
    """Learns from rewards of its own completions. Subclasses fill `targets` and `minibatch_loss`.

    The reward is learned from the teacher's answers before the first rollout, unless `reward` is given or the
    environments are of the evaluation door, whose true reward is then learned from, shaped as any other.
    """

    config_class = OnlineConfig
    config: OnlineConfig
    on_policy: ClassVar[bool] = True
    """Whether the policy writes what it learns from; else the reference does, and a rollout tells nothing of the KL."""

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        reward: Reward | None = None,
        config: OnlineConfig | None = None,
        **learner: Any,
    ) -> None:
        """Make a learner.

        Args:
            policy: "decoder" or a LanguageModel.
            env: a batch of a text task; see TextLearner.
            reward: a reward model or a function of prompts and completions; None to learn one from the teacher. A
                module is moved to the learner's device.
            config: settings of the method.
            **learner: as TextLearner.

        Raises:
            ValueError: for groups that do not fill a rollout, a controller of the KL where the policy does not write, a
                reward that cannot be made or shaped as the settings ask, and where steps are to be rewarded by a reward
                that knows none. Nothing was asked.
        """
        self.reward = reward
        self.report: Any = None
        """How the fit of the reward went; None where it was given."""
        self.reward_is_learned = False
        """Whether `reward` was learned from the teacher, and so is part of the state."""
        super().__init__(policy, env, config=config, **learner)
        self.move(reward)
        self.beta = self.config.beta
        """Weight of the KL now; the controllers change it."""
        if not self.on_policy and self.config.kl_controller != "fixed":
            raise ValueError(
                f"kl_controller={self.config.kl_controller!r} follows the KL of what is written, and the reference "
                f'writes for {type(self).__name__}. Expected "fixed".'
            )
        self._check_steps()
        self.transformed: TransformedReward | None = None
        """What turns completions into the reward to learn from; there once prepared."""
        self.stepwise: TransformedSteps | None = None
        """What turns completions into rewards of their steps, in place of that; only for a transform in OF_STEPS."""
        self.groups(self.config.group)  # refuse what does not fit before anything is asked
        self._check_reward()

    def _check_steps(self) -> None:
        """Refuse to reward steps by what knows none, before anything is asked."""
        named = TEXT_REWARD_MODELS[self.preferences.reward_model]
        source = None if self.sees_true_reward else named if self.reward is None else self.reward
        if self.config.transform in OF_STEPS and "steps" not in getattr(source, "supports", ()):
            raise ValueError(
                f"transform={self.config.transform!r} rewards the steps of a process reward, and this reward has none. "
                'Pass a ProcessReward as reward=, or preferences=TextPreferenceConfig(reward_model="process", '
                'reward_options={"separators": tokens that end a step}).'
            )

    @torch.no_grad()
    def _check_reward(self) -> None:
        """Refuse a reward that cannot be made, or shaped as the settings ask, before anything is asked."""
        settings, reward = self.config, self.reward
        if reward is None and not self.sees_true_reward:
            reward = untrained_reward_model(self.trunk, self.preferences)
        if hasattr(reward, "compare") and not settings.references:
            raise ValueError(f"{type(reward).__name__} compares completions with others: set references= to 1 or more.")
        members, model = torch.zeros(1, 1), cast(Any, reward)
        if "members" in getattr(model, "supports", ()):
            prompts = torch.as_tensor(self.language.prompt_tokens[:1], device=self.device)
            empty = prompts.new_full((1, self.language.max_new_tokens), self.language.eos)
            members = torch.zeros(len(model.members(prompts, empty)), 1)
        aggregated = _tried(settings, "aggregate", members)
        if not aggregated.isfinite().all():
            raise ValueError(
                f"aggregate={settings.aggregate!r} makes {aggregated.item()} of the {len(members)} member(s) of this "
                "reward. Take more members, or another aggregate. Nothing was asked."
            )
        if settings.transform in OF_STEPS:
            _tried(settings, "transform", members[:1], mask=torch.ones(1, 1, dtype=torch.bool))
        else:
            references = torch.zeros(1, settings.references) if settings.references else None
            _tried(settings, "transform", aggregated, RewardContext(references, RunningRewards.of(aggregated)))

    # What a method fills, and may replace.

    def targets(self, experience: Experience) -> dict[str, Tensor]:
        """(n, ...) targets by name: advantages and the like, without gradient."""
        raise NotImplementedError

    def minibatch_loss(self, batch: Experience, logps: Tensor) -> Tensor:
        """() loss of a minibatch, in whole groups; `logps` (n, T) are the policy's now, with gradients."""
        raise NotImplementedError

    def minibatches(self, n: int) -> Iterator[Tensor]:
        """One pass over n completions: rows of whole groups, shuffled; all in their order where they are one batch."""
        group, size = self.config.group, self.config.batch_size or n
        if size >= n:
            yield torch.arange(n, device=self.device)
            return
        for part in torch.randperm(n // group, generator=self.rng).split(max(1, size // group)):
            yield (part[:, None] * group + torch.arange(group)).reshape(-1).to(self.device)

    @property
    def writer(self) -> Any:
        """Who writes the completions."""
        return self.policy if self.on_policy else self.reference

    # The loop.

    def begin(self) -> None:
        """Learn the reward, where none was given, and make of it the one to learn from."""
        rng = torch.Generator().manual_seed(self.seed + 1)  # not the learner's own, so that a resumed run can ask again
        if self.reward is None and not self.sees_true_reward:  # a loaded learner keeps what it has learned
            answered = ask_pairs(self, self.preferences.queries, rng)
            self.reward, self.report = learn_reward(self.trunk, *answered, self.preferences, rng)
            self.reward_is_learned = True
        self._take_reward()

    def _take_reward(self) -> None:
        """Make of the reward the one to learn from."""
        self.transformed = self._transformed(torch.Generator().manual_seed(self.seed + 2))
        if self.config.transform in OF_STEPS:
            model: Any = self.reward
            self.stepwise = TransformedSteps(model, self.config.transform, **self.config.transform_options)

    def _transformed(self, rng: torch.Generator) -> TransformedReward:
        settings, references = self.config, None
        reward: Any = true_reward(self.envs, self.language) if self.sees_true_reward else self.reward
        if settings.references:
            prompts = torch.as_tensor(self.language.prompt_tokens, device=self.device)
            length = self.language.max_new_tokens
            references = References.sample(
                self.reference, prompts, settings.references, length, rng, settings.forward_rows
            )
        if hasattr(reward, "compare"):
            assert references is not None
            reward = WinRate(reward, references)
        members: Any = reward if "members" in getattr(reward, "supports", ()) else OneMember(reward)
        stepwise = settings.transform in OF_STEPS
        return TransformedReward(
            members,
            "identity" if stepwise else settings.transform,
            aggregate=settings.aggregate,
            references=references,
            options={} if stepwise else settings.transform_options,
            aggregate_options=settings.aggregate_options,
            **({} if settings.forward_rows is None else {"batch": settings.forward_rows}),
        )

    @property
    def sees_true_reward(self) -> bool:
        """Whether the environments are of the evaluation door, and no reward was given."""
        return self.reward is None and isinstance(self.envs.unwrapped, EvaluationVectorEnv)

    def proxy(self, prompts: Tensor, completions: Tensor) -> Tensor | None:
        """(n,) reward of completions before it is shaped; None before `prepare`, and where the true one is seen."""
        if self.transformed is None or self.sees_true_reward:
            return None
        return self.transformed.aggregated(prompts, completions)

    @torch.no_grad()
    def roll_out(self) -> Experience:
        """Write completions of drawn prompts and score them."""
        self.prepare()
        assert self.transformed is not None
        written = self.write(self.draw_prompts(self.config.group), self.writer, temperature=self.config.temperature)
        read, tokens = (written.prompts, written.tokens), None
        proxy = written.rewards if self.sees_true_reward else self.transformed.aggregated(*read)
        rewards = self.transformed.shaped(proxy, written.prompts)
        if self.stepwise is not None:
            tokens = self.in_parts(self.stepwise, *read)
            rewards = tokens.sum(-1)
        logps, reference_logps = (self._logps(model, *read) for model in (self.writer, self.reference))
        experience = Experience(*read, written.mask, logps, reference_logps, proxy, rewards, tokens)
        return replace(experience, targets=self.targets(experience))

    def _logps(self, model: Any, prompts: Tensor, tokens: Tensor) -> Tensor:
        """(n, T) log-probabilities in nats at the temperature of the rollouts."""
        return self.in_parts(partial(model.logprobs, temperature=self.config.temperature), prompts, tokens)

    def iterate(self) -> None:
        """Write a rollout, pass over it `epochs` times, and move beta."""
        experience = self.roll_out()
        for _ in range(self.config.epochs):
            for rows in self.minibatches(len(experience.proxy)):
                batch = experience[rows]
                logps = self.policy.logprobs(batch.prompts, batch.tokens, self.config.temperature)
                loss = self.minibatch_loss(batch, logps)
                norm = self.descend(loss)
                self._record(loss, norm, batch, logps.detach())
        self.num_timesteps += len(experience.proxy)
        self.record_rollout(experience)
        self._control(experience)

    def _control(self, experience: Experience) -> None:
        """Move beta towards what holds the KL at its target."""
        settings = self.config
        if settings.kl_controller == "fixed":
            return
        kl = float((experience.logps - experience.reference_logps).sum(-1).mean())
        if settings.kl_controller == "adaptive":
            n = len(experience.proxy)
            self.beta = adaptive_kl(self.beta, kl, target=settings.kl_target, samples=n, horizon=settings.kl_horizon)
        if settings.kl_controller == "adaptive_per_batch":
            self.beta = adaptive_kl_per_batch(self.beta, kl, target=settings.kl_target)

    def _record(self, loss: Tensor, norm: Tensor, batch: Experience, logps: Tensor) -> None:
        ratio = torch.where(batch.mask, logps - batch.logps, 0.0).exp()
        self.record_step(loss=loss, grad_norm=norm, ratio_deviation=(ratio - 1).abs().amax())

    def record_rollout(self, experience: Experience) -> None:
        """Log what a rollout was like, under rollout/."""
        facts = {
            "proxy": experience.proxy.mean(),
            "shaped_reward": experience.rewards.mean(),
            "entropy": -experience.logps.sum(-1).mean(),
            "length": experience.mask.sum(-1).float().mean(),
        }
        if self.on_policy:
            facts["kl"] = (experience.logps - experience.reference_logps).sum(-1).mean()
        for name, value in zip(facts, torch.stack(list(facts.values())).tolist(), strict=True):
            self.logger.record(f"rollout/{name}", value)
        self.logger.record("rollout/beta", self.beta)

    def unsaved_arguments(self) -> tuple[str, ...]:
        """A reward that was given."""
        return ("reward",) if self.reward is not None and not self.reward_is_learned else ()

    def own_state(self) -> Arrays:
        """The weight of the KL, moments of the reward, and the reward where it was learned."""
        model: Any = self.reward
        running = None if self.transformed is None else self.transformed.running
        parts = {
            "running": {} if running is None else {name: value.cpu().numpy() for name, value in vars(running).items()},
            "reward": module_state(model) if self.reward_is_learned else {},
        }
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return {"beta": np.array(self.beta), "prepared": np.array(self._prepared), **named}

    def load_own_state(self, state: Arrays) -> None:
        """Put back what `own_state` gave; the reward to learn from is made of it again, and nothing is asked."""
        self.beta = float(state["beta"])
        if "reward" not in self.unsaved_arguments() and (reward := under("reward", state)):
            self.reward = restored_reward_model(self.trunk, self.preferences, reward)
            self.reward_is_learned = True
        there = self.reward is not None or self.sees_true_reward
        if there:
            self._take_reward()  # its references are scored by this reward
        self._prepared = there and (self._prepared or bool(state.get("prepared", True)))  # earlier files do not say it
        if self.transformed is not None and (running := under("running", state)):
            tensors = {name: torch.as_tensor(np.array(array), device=self.device) for name, array in running.items()}
            self.transformed.running = RunningRewards(**tensors)


def _tried(settings: OnlineConfig, field_name: str, *zeros: Any, **supplied: Any) -> Tensor:
    """What the entry of REWARD_TRANSFORMS that a field of the settings names makes of zeros, with its options.

    Raises:
        ValueError: naming the field where it makes nothing of them.
    """
    name, options = getattr(settings, field_name), getattr(settings, f"{field_name}_options")
    try:
        return REWARD_TRANSFORMS[name](*zeros, **supplied, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{field_name}={name!r} with {field_name}_options={dict(options)!r} cannot shape a reward: {error} "
            "Nothing was asked."
        ) from error
