"""Makes any SB3 algorithm a preference learner."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import unwrap_vec_wrapper

from prefenvs.agents.checkpoint import load_module, load_optimizer, module_state, optimizer_state, under
from prefenvs.agents.evaluation import write_csv
from prefenvs.agents.learned_reward import LearnedReward, RewardReplayBuffer, observations_after
from prefenvs.agents.reward_models import FitReport, PreferenceData, RewardEnsemble, fit
from prefenvs.agents.reward_models.step_model import check_fitted
from prefenvs.error import unknown_name
from prefenvs.labelling import Feedback
from prefenvs.queries import STRATEGIES, Candidates, queries_to_ask, sessions
from prefenvs.segment_store import SegmentStore
from prefenvs.segments import Label, Query

HISTORY = ("step", "asked", "answered", "loss", "accuracy", "held_out_accuracy", "epochs")
"""Columns of a learner's history of sessions."""
WITHOUT_BUDGET = 200
"""Queries that are asked where neither the config nor a budget says how many."""


@dataclass
class PreferenceConfig:
    """When and what to ask, and how to learn from the answers."""

    queries: int | None = None
    """Queries to ask in all; None for the environment's whole budget, or 200 without one. A smaller budget wins."""
    sessions: int = 10
    """Feedback sessions the queries are spread over."""
    schedule: str = "constant"
    """How: constant, decaying or growing."""
    first_session: int = 1000
    """Environment steps before the first session."""
    last_session: int | None = None
    """Environment steps at the last session, the others lie evenly between; None for half of those of `learn`, each
    time it is called: give a number where training is cut into several calls."""
    segment_steps: int = 50
    """Steps a segment (B-Pref: 50)."""
    strategy: str = "uniform"
    """Which candidates are asked about: a name from STRATEGIES. The first session is uniform."""
    candidates: int = 10
    """Candidates drawn for each query asked, where the strategy looks at them (B-Pref: 10)."""
    newest: int | None = None
    """Ask only about this many latest episodes of each environment (on-policy queries); None for all that are kept."""
    whole_windows: bool = False
    """Ask about segments of exactly `segment_steps` steps only. False also takes the short ones at the end of episodes
    that terminated; where each step earns the same reward they alone tell a failure from a success."""
    members: int = 3
    """Networks in the reward ensemble."""
    hidden: tuple[int, ...] = field(default=(256, 256, 256))
    """Hidden layers of each."""
    standardize: bool = True
    """Whether the ensemble reads observations and actions in units of their spread over the segments asked about
    (B-Pref: False, as they are)."""
    scale_reward: bool = True
    """Whether the learned reward is divided by its root mean square over the segments asked about (B-Pref: False, so
    it lies in [-1, 1])."""
    held_out_every: int | None = 10
    """Every so many answered queries one is kept from training, to log the accuracy on them (B-Pref: None, all are
    trained on)."""
    reward_lr: float = 3e-4
    """Adam's learning rate for the ensemble."""
    reward_epochs: int = 100
    """Passes over all answers a session, at most."""
    reward_batch: int = 64
    """Queries a step of the ensemble's training."""
    stop_accuracy: float = 0.97
    """Training accuracy at which a session's training stops (B-Pref: 0.97)."""

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)  # JSON made it a list
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if self.sessions < 1 or (self.queries is not None and self.queries < self.sessions):
            raise ValueError(
                f"queries={self.queries} do not fill sessions={self.sessions}; expected at least one each."
            )
        if self.held_out_every is not None and self.held_out_every < 2:
            raise ValueError(
                f"held_out_every={self.held_out_every} leaves no answer to train on; expected 2 or more, or None."
            )


class PreferenceCallback(BaseCallback):
    """Records segments, asks about them in sessions, trains the reward model and relabels the replay buffer.

    Sessions take place between rollouts, so a rollout sees one reward. Give it to `learn` of any SB3 algorithm whose
    environment is wrapped by `LearnedReward` or whose `replay_buffer_class` is `RewardReplayBuffer`; with neither,
    nor subclasses of them that make rewards of your own, `learn` raises ValueError before anything is asked.

    Example:
        >>> from stable_baselines3 import SAC
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents import PreferenceCallback, PreferenceConfig, RewardReplayBuffer
        >>> env = gym.make("prefenvs/Pendulum-v0", budget=20)
        >>> model = SAC("MlpPolicy", env, replay_buffer_class=RewardReplayBuffer, seed=0, learning_starts=400)
        >>> config = PreferenceConfig(queries=20, sessions=1, first_session=400, hidden=(16,))
        >>> asked = PreferenceCallback(prefenvs.feedback(env), config, seed=0)
        >>> _ = model.learn(405, callback=asked)
        >>> asked.feedback.asked
        20
    """

    def __init__(
        self, feedback: Feedback, config: PreferenceConfig, *, seed: int, reward_model: RewardEnsemble | None = None
    ) -> None:
        """Learn from `feedback`.

        Args:
            feedback: of the environment that the algorithm trains on.
            config: when and what to ask.
            seed: of windows, initial reward weights and shuffles.
            reward_model: trained in place, on the learner's device; by default a RewardEnsemble as `config` says, made
                when training starts. One of your own is a StepRewardModel with the members of FITTED.

        Raises:
            TypeError: naming the members that `reward_model` lacks.
        """
        super().__init__()
        if reward_model is not None:
            check_fitted(reward_model)
        self.feedback, self.config, self.seed = feedback, config, seed
        self.reward_model = reward_model
        self.data = PreferenceData(config.held_out_every, scale_reward=config.scale_reward)
        self.report: FitReport | None = None
        self.session = 0
        """Sessions held so far."""
        self.history = np.zeros((0, 7))
        """(sessions, 7) a row a session, with the columns of HISTORY."""
        self.history_path: Path | None = None
        """CSV file that gets the history after each session, or None."""
        self.latest: tuple[Query, Label] | None = None
        """Questions and answers of the last session held by this process."""
        self._told = False  # of questions that are still to be asked
        self._held_at = -1  # a run resumed at the step of its last session must not hold the next one there
        queries = queries_to_ask(config.queries, feedback.remaining, WITHOUT_BUDGET)
        self._sizes = sessions(config.schedule, queries, config.sessions)
        self._steps = np.zeros(0)  # of the sessions; known when training starts
        self._store: SegmentStore | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._asked_features = np.zeros((0, 0), np.float32)
        self.reseed(0)

    def reseed(self, barrier: int) -> None:
        """Start the generators anew from (seed, barrier), so that a resumed run draws what an unbroken one draws."""
        sequence = np.random.SeedSequence([self.seed, barrier])
        self._rng = np.random.default_rng(sequence)
        self._torch_rng = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def build(
        self, observation_space: Any, action_space: Any, num_envs: int, device: torch.device | str
    ) -> RewardEnsemble:
        """Make the store, the reward model and its optimiser if that has not been done; returns the model."""
        if self._store is None:
            self._store = SegmentStore(
                observation_space,
                action_space,
                num_envs,
                episodes=self.feedback.recorded_episodes,
                task=self.feedback.task,
            )
            if self.reward_model is None:
                rng = torch.Generator().manual_seed(self.seed)
                self.reward_model = RewardEnsemble(
                    observation_space,
                    action_space,
                    members=self.config.members,
                    hidden=self.config.hidden,
                    standardize=self.config.standardize,
                    rng=rng,
                )
            self.reward_model.to(device)
            self._optimizer = torch.optim.Adam(self.reward_model.parameters(), lr=self.config.reward_lr)
        assert self.reward_model is not None
        return self.reward_model

    @property
    def store(self) -> SegmentStore:
        """The learner's own experience; there once training has started."""
        assert self._store is not None, "the store is made when training starts"
        return self._store

    def _init_callback(self) -> None:
        env, normalizer = self.training_env, self.model.get_vec_normalize_env()
        if normalizer is not None and normalizer.norm_obs and hasattr(self.model, "replay_buffer"):
            raise ValueError(
                "VecNormalize normalizes observations here, and SB3 keeps the raw ones in the replay buffer: the "
                "reward model would be trained on other numbers than it relabels. Use VecNormalize(norm_obs=False), or "
                "gymnasium.wrappers.NormalizeObservation around each environment."
            )
        if isinstance(getattr(self.model, "replay_buffer", None), RewardReplayBuffer):
            if getattr(self.model, "n_steps", 1) != 1:
                raise ValueError(
                    f"n_steps={self.model.n_steps}, and a RewardReplayBuffer keeps single steps, whose rewards it "  # type: ignore[attr-defined]
                    "relabels. Use n_steps=1. Nothing was asked."
                )
        else:
            rewarded = unwrap_vec_wrapper(env, LearnedReward)
            if rewarded is None or rewarded.model is not self.reward_model:
                raise ValueError(
                    f"{type(self.model).__name__} would not learn from the answers: its environment is not wrapped by "
                    "LearnedReward with this callback's reward model, nor is its replay buffer a RewardReplayBuffer "
                    "(subclasses of both may make rewards of your own). Off-policy, pass "
                    "replay_buffer_class=RewardReplayBuffer; on-policy, train in LearnedReward(venv, model) with "
                    "model = callback.build(venv.observation_space, venv.action_space, venv.num_envs, device). "
                    "Nothing was asked."
                )
        first, last = self.config.first_session, self.config.last_session
        last = self.model._total_timesteps // 2 if last is None else last
        self._steps = np.linspace(first, max(first, last), self.config.sessions)
        self.build(env.observation_space, env.action_space, env.num_envs, self.model.device)
        if self.num_timesteps != self.model.num_timesteps:  # it learned without this callback meanwhile
            self.store.cut()

    def _on_rollout_start(self) -> None:
        left = self.session < len(self._steps) and self.num_timesteps != self._held_at
        due = left and self.num_timesteps >= self._steps[self.session]
        config = self.config
        if due and self.store.windows(config.segment_steps, config.newest, whole_windows=config.whole_windows):
            self.hold_session()

    def _on_step(self) -> bool:
        infos, dones = self.locals["infos"], np.asarray(self.locals["dones"])
        after = observations_after(self.locals["new_obs"], dones, infos)
        truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos]) & dones
        ids = np.stack([info["segment_id"] for info in infos])
        # On-policy rollouts clip actions to the space; the clipped ones are what the environment did.
        actions = self.locals.get("clipped_actions", self.locals["actions"])
        self.store.add(self.model._last_obs, actions, after, dones & ~truncated, truncated, ids)  # type: ignore[arg-type]
        return True

    def _on_training_end(self) -> None:
        left = sum(self._sizes[self.session :])
        if left and not self._told:
            self._told = True
            warnings.warn(
                f"{left} of {sum(self._sizes)} questions are still to be asked: their sessions are due at steps "
                f"{self._steps[self.session]:.0f} to {self._steps[-1]:.0f}, one between two rollouts, once there are "
                f"segments of {self.config.segment_steps} steps, and training ended at step {self.num_timesteps}. "
                "Go on with learn(..., reset_num_timesteps=False), train for longer, or change first_session, "
                "last_session, sessions or segment_steps in the config.",
                stacklevel=5,
            )

    def hold_session(self) -> None:
        """Sample queries, ask, train the reward model, relabel."""
        size = int(min(self._sizes[self.session], self.feedback.remaining))
        if size:
            query, asked_features = self._choose(size)
            label = self.feedback.ask(query)  # if this fails, the session is still to be held
            self.latest, self._asked_features = (query, label), asked_features
        self.session += 1
        self._held_at = self.num_timesteps
        if size == 0:
            return
        assert self.reward_model is not None
        assert self._optimizer is not None
        self.data.add(self.reward_model, query, label)
        first = not self.reward_model.trained
        if len(self.data):
            self.report = fit(
                self.reward_model,
                self._optimizer,
                self.data,
                rng=self._torch_rng,
                epochs=self.config.reward_epochs,
                batch=self.config.reward_batch,
                stop_accuracy=self.config.stop_accuracy,
            )
            buffer = getattr(self.model, "replay_buffer", None)
            if isinstance(buffer, RewardReplayBuffer):
                buffer.relabel(self.reward_model)
        self._log(self.report)
        if len(self.data):
            after = getattr(self.model, "after_session", None)
            if after is not None:
                after(first)

    def _log(self, report: FitReport | None) -> None:
        """A row of the history, with nan for the fit while every question was skipped."""
        report = report or FitReport(0, math.nan, math.nan, math.nan)
        row = (
            *(self.num_timesteps, self.feedback.asked, self.feedback.answered),
            *(report.loss, report.accuracy, report.held_out_accuracy, report.epochs),
        )
        self.history = np.vstack([self.history, row])
        if self.history_path is not None:
            write_csv(self.history_path, HISTORY, self.history)
        for name, value in zip(HISTORY[1:], row[1:], strict=True):
            self.logger.record(f"preferences/{name}", value)

    def _choose(self, size: int) -> tuple[Query, np.ndarray]:
        """A query, and the features of all that will have been asked with it."""
        config = self.config
        strategy = "uniform" if self.session == 0 else config.strategy
        pool = size if strategy == "uniform" else size * config.candidates
        windows = self.store.sample(
            2 * pool, config.segment_steps, self._rng, config.newest, whole_windows=config.whole_windows
        )
        query = Query(windows)
        if config.strategy == "uniform":
            return query, self._asked_features
        candidates = self._describe(query)
        chosen = STRATEGIES[strategy](candidates, size, self._rng)
        return query[chosen], np.concatenate([candidates.labelled, candidates.features[chosen]])

    @torch.no_grad()
    def _describe(self, query: Query) -> Candidates:
        assert self.reward_model is not None
        segments = query.segments.torch(self.reward_model.device)
        sums = self.reward_model.segment_members(segments).reshape(-1, query.n, query.k)
        observations = segments.observations[:, :-1].float() * segments.mask.reshape(
            *segments.mask.shape, *(1,) * (segments.observations.dim() - 2)
        )
        features = observations.reshape(query.n, -1).cpu().numpy().astype(np.float32)
        return Candidates(sums.softmax(-1).cpu().numpy(), features, self._asked_features.reshape(-1, features.shape[1]))

    def cut(self) -> None:
        """End all episodes of the store; the environments are about to be reset from outside."""
        self.store.cut()

    def state(self) -> dict[str, np.ndarray]:
        """Everything a resumed run needs, as named arrays; no true rewards among them."""
        return self.learned_state() | {f"store/{name}": array for name, array in self.store.state().items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state` gave, after `build`."""
        self.store.load_state(under("store", state))
        self.load_learned(state)

    def learned_state(self) -> dict[str, np.ndarray]:
        """The same without the experience that questions are made of: sessions held, answers and reward model."""
        assert self.reward_model is not None
        assert self._optimizer is not None
        parts = {
            "data": self.data.state(),
            "reward_model": module_state(self.reward_model),
            "reward_optimizer": optimizer_state(self._optimizer),
            "own": {
                "session": np.array(self.session),
                "held_at": np.array(self._held_at),
                "sizes": np.array(self._sizes),
                "asked_features": self._asked_features,
                "history": self.history,
            },
        }
        return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load_learned(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `learned_state` gave, after `build`."""
        assert self.reward_model is not None
        assert self._optimizer is not None
        self.data.load_state(under("data", state), self.reward_model.device)
        load_module(self.reward_model, under("reward_model", state))
        load_optimizer(self._optimizer, under("reward_optimizer", state))
        self.session, self._sizes = int(state["own/session"]), state["own/sizes"].tolist()
        self._held_at = int(state["own/held_at"])
        self._asked_features, self.history = state["own/asked_features"], state["own/history"]
