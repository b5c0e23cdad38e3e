"""Compares the learned reward with the true one during training, for people to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from prefenvs.agents.evaluation import write_csv
from prefenvs.agents.learned_reward import predict_rewards
from prefenvs.agents.preference_callback import PreferenceCallback
from prefenvs.error import unknown_name
from prefenvs.labelling import true_scores
from prefenvs.metrics import NEED_FUNCTIONS, REWARD_METRICS, RewardComparison, RewardFunction, Transitions


class RewardMetricsCallback(BaseCallback):
    """After feedback sessions, logs `metrics/...` of the learned reward against the true one over held steps.

    It asks nothing, draws from a generator of its own and changes nothing: training goes on just as without it. Only
    the numbers named are written, to the logger and a CSV; true rewards are dropped. No learner may choose by them.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents import PEBBLE, PreferenceConfig, RewardMetricsCallback
        >>> env = gym.make("prefenvs/Pendulum-v0", budget=20)
        >>> config = PreferenceConfig(queries=20, sessions=1, first_session=400, hidden=(16,))
        >>> model = PEBBLE("MlpPolicy", env, preferences=config, learning_starts=300, seed=0)
        >>> metrics = RewardMetricsCallback(model.preferences, ("pearson", "starc"))
        >>> _ = model.learn(410, callback=metrics)
        >>> metrics.history.shape                            # a session; step, session and two metrics
        (1, 4)
    """

    def __init__(
        self,
        preferences: PreferenceCallback,
        metrics: tuple[str, ...] = ("pearson", "spearman", "starc"),
        *,
        every: int = 1,
        steps: int = 1024,
        seed: int = 0,
        true_reward: RewardFunction | None = None,
        path: Path | None = None,
    ) -> None:
        """Measure the reward model of `preferences`; to be called after it, as the agents' `learn(callback=)` does.

        Args:
            preferences: whose sessions are followed.
            metrics: names from REWARD_METRICS.
            every: sessions between measurements.
            steps: steps drawn from all that the learner holds, for each measurement.
            seed: of those draws.
            true_reward: (observations, actions, next observations) of the learner to true rewards, for "epic".
            path: CSV file that gets the history, or None.

        Raises:
            ValueError: for an unknown metric, or one that needs `true_reward`.
        """
        super().__init__()
        check_metrics(metrics, closed_form=true_reward is not None)
        self.preferences, self.metrics, self.every, self.steps = preferences, tuple(metrics), every, steps
        self.seed, self.true_reward, self.path = seed, true_reward, path
        self.history = np.zeros((0, 2 + len(self.metrics)))
        """(measurements, 2 + metrics): environment steps, session, then the metrics in order."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `history`."""
        return ("step", "session", *self.metrics)

    def _on_rollout_start(self) -> None:
        session = self.preferences.session
        last = self.history[-1, 1] if len(self.history) else 0
        model = self.preferences.reward_model
        if session > last and session % self.every == 0 and model is not None and model.trained:
            self.measure()

    def _on_step(self) -> bool:
        return True

    def measure(self) -> dict[str, float]:
        """Compare now; the metrics by name."""
        held = self.compare()
        found = {name: REWARD_METRICS[name](held) for name in self.metrics}
        row = [self.num_timesteps, self.preferences.session, *found.values()]
        self.history = np.vstack([self.history, row])
        for name, value in found.items():
            self.logger.record(f"metrics/{name}", value)
        if self.path is not None:
            write_csv(self.path, self.columns, self.history)
        return found

    def compare(self) -> RewardComparison:
        """Steps drawn from the learner's store, with learned and true rewards."""
        model = self.preferences.reward_model
        assert model is not None, "the reward model is made when training starts"
        rng = np.random.default_rng([self.seed, self.preferences.session])
        drawn = self.preferences.store.sample(self.steps, 1, rng)
        steps = Transitions.of(drawn)
        return RewardComparison(
            steps,
            true_scores(self.training_env, drawn),
            predict_rewards(model, steps.observations, steps.actions, steps.next_observations).astype(np.float64),
            gamma=float(getattr(self.model, "gamma", 0.99)),
            seed=self.seed,
            true_reward=self.true_reward,
            learned_reward=lambda *steps: predict_rewards(model, *steps).astype(np.float64),
        )

    def cut(self) -> None:
        """Nothing to cut."""

    def reseed(self, barrier: int) -> None:
        """Nothing to reseed: the draws depend on the seed and the session alone."""

    def state(self) -> dict[str, np.ndarray]:
        """The history so far; distances and correlations, no true rewards."""
        return {"history": self.history}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Put the history back."""
        self.history = state["history"]


def check_metrics(metrics: tuple[str, ...], *, closed_form: bool = False) -> None:
    """Refuse unknown metrics, and those that need the true reward in closed form where it is not given.

    Raises:
        ValueError: naming the metric.
    """
    for name in metrics:
        if name not in REWARD_METRICS:
            raise unknown_name("metric", name, REWARD_METRICS)
        if name in NEED_FUNCTIONS and not closed_form:
            others = ", ".join(sorted(set(REWARD_METRICS) - NEED_FUNCTIONS))
            raise ValueError(
                f"metric {name!r} reads rewards of steps that nobody took, so it needs the true reward as a function: "
                f"RewardMetricsCallback(..., true_reward=f). From recorded rewards alone there are: {others}."
            )
