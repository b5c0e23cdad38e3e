"""PEBBLE: off-policy preference learning with unsupervised pre-training and relabelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from prefenvs.agents.learned_reward import RewardReplayBuffer
from prefenvs.agents.preference_callback import PreferenceCallback, PreferenceConfig
from prefenvs.agents.sac import SAC
from prefenvs.agents.saving import load_agent, save_agent
from prefenvs.labelling import feedback as feedback_of


class PEBBLE(SAC):
    """SAC on a reward learned from preferences. Lee et al. 2021, arXiv:2106.05091.

    Random actions until `learning_starts`, then exploration by state entropy until the first session, then feedback
    sessions after each of which the whole replay buffer is relabelled; after the first the critic starts afresh.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents import PEBBLE, PreferenceConfig
        >>> env = gym.make("prefenvs/Pendulum-v0", budget=20)
        >>> config = PreferenceConfig(queries=20, sessions=1, first_session=400, hidden=(16,))
        >>> model = PEBBLE("MlpPolicy", env, preferences=config, learning_starts=300, seed=0).learn(410)
        >>> model.preferences.feedback.answered
        20
    """

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        preferences: PreferenceConfig | None = None,
        reset_updates: int = 100,
        seed: int | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        _init_setup_model: bool = True,
        **sac: Any,
    ) -> None:
        """Make a learner.

        Args:
            policy: SB3's policy name or class.
            env: a preference environment, its id, or an SB3 VecEnv of them.
            preferences: when and what to ask.
            reset_updates: gradient steps right after the critic was reset (B-Pref: 100).
            seed: of the networks, the reward model and the environments.
            policy_kwargs: as SB3; copied, because SB3 writes into it.
            _init_setup_model: as SB3.
            **sac: as SB3's SAC.

        Raises:
            TypeError: if `env` is not a preference environment.
        """
        self.reset_updates = reset_updates
        env = maybe_make_env(env, verbose=0)
        feedback = feedback_of(env)
        super().__init__(
            policy,
            env,
            seed=seed,
            replay_buffer_class=RewardReplayBuffer,
            policy_kwargs=dict(policy_kwargs or {}),
            _init_setup_model=_init_setup_model,
            **sac,
        )
        self.preferences = PreferenceCallback(feedback, preferences or PreferenceConfig(), seed=seed or 0)
        assert self.env is not None
        self.preferences.build(self.observation_space, self.action_space, self.n_envs, self.device)
        assert isinstance(self.replay_buffer, RewardReplayBuffer)
        self.replay_buffer.model = self.preferences.reward_model
        self.replay_buffer.explore = True

    def learn(self, total_timesteps: int, callback: Any = None, **arguments: Any) -> PEBBLE:  # type: ignore[override]
        """As SB3; counts environment steps."""
        super().learn(total_timesteps, callback=with_preferences(self.preferences, callback), **arguments)
        return self

    def after_session(self, first: bool) -> None:
        """Once the reward model is trained for the `first` time the critic, trained on exploration, starts afresh."""
        if not first or self.reset_updates == 0:
            return
        fresh = self.policy.make_critic()
        self.critic.load_state_dict(fresh.state_dict())
        self.critic_target.load_state_dict(fresh.state_dict())
        self.critic.optimizer.state.clear()
        self.train(self.reset_updates, self.batch_size)

    def save(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write a zip of JSON and safetensors: networks, optimisers, reward model and answers, without experience."""
        own = {"preferences": asdict(self.preferences.config)}
        save_agent(self, path, own, self.preferences.learned_state())

    @classmethod
    def load(  # type: ignore[override]
        cls, path: str | Path, env: Any = None, device: torch.device | str = "auto", **changes: Any
    ) -> PEBBLE:
        """Read what `save` wrote; `env` is a preference environment to go on learning in.

        Sessions that were held are not held again, and answers are kept. `changes` are arguments of the constructor to
        take in place of the saved ones; `preferences` among them begin anew to ask, without the earlier answers.

        Raises:
            DamagedFile: if the file cannot be read.
            RunMismatch: if it holds another kind of agent, or one for other spaces.
            ValueError: without `env`, or without a function, class or object of one's own that it was trained with (a
                schedule, a policy, action noise).
        """
        return load_agent(cls, path, env, device, **changes)  # type: ignore[return-value]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "preferences"]


def with_preferences(preferences: PreferenceCallback, callback: Any) -> BaseCallback:
    """`preferences` before the user's own callback: one, a list of them, or a function, as SB3 takes it."""
    if callback is None:
        return preferences
    others = callback if isinstance(callback, list) else [callback]
    return CallbackList(
        [preferences, *(each if isinstance(each, BaseCallback) else ConvertCallback(each) for each in others)]
    )
