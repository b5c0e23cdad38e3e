"""PrefPPO: on-policy preference learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.utils import get_device

from prefenvs.agents.learned_reward import LearnedReward
from prefenvs.agents.pebble import with_preferences
from prefenvs.agents.ppo import PPO
from prefenvs.agents.preference_callback import PreferenceCallback, PreferenceConfig
from prefenvs.agents.saving import load_agent, save_agent
from prefenvs.labelling import feedback as feedback_of


class PrefPPO(PPO):
    """PPO on a reward learned from preferences. Christiano et al. 2017, arXiv:1706.03741, with PPO as in B-Pref.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents import PrefPPO, PreferenceConfig
        >>> env = gym.make("prefenvs/CartPole-v0", budget=20)
        >>> config = PreferenceConfig(queries=20, sessions=1, first_session=128, hidden=(16,))
        >>> model = PrefPPO("MlpPolicy", env, preferences=config, n_steps=128, seed=0).learn(256)
        >>> model.preferences.feedback.asked
        20
    """

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        preferences: PreferenceConfig | None = None,
        seed: int | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        _init_setup_model: bool = True,
        **ppo: Any,
    ) -> None:
        """Make a learner.

        Args:
            policy: SB3's policy name or class.
            env: a preference environment, its id, or an SB3 VecEnv of them.
            preferences: when and what to ask.
            seed: of the networks, the reward model and the environments.
            policy_kwargs: as SB3; copied, because SB3 writes into it.
            _init_setup_model: as SB3.
            **ppo: as SB3's PPO.

        Raises:
            TypeError: if `env` is not a preference environment.
        """
        env = maybe_make_env(env, verbose=0)
        venv = self._wrap_env(env, verbose=0, monitor_wrapper=True)
        self.preferences = PreferenceCallback(feedback_of(env), preferences or PreferenceConfig(), seed=seed or 0)
        device = ppo.get("device", "auto")
        model = self.preferences.build(venv.observation_space, venv.action_space, venv.num_envs, get_device(device))
        super().__init__(
            policy,
            LearnedReward(venv, model),
            seed=seed,
            policy_kwargs=dict(policy_kwargs or {}),
            _init_setup_model=_init_setup_model,
            **ppo,
        )

    def learn(self, total_timesteps: int, callback: Any = None, **arguments: Any) -> PrefPPO:  # type: ignore[override]
        """As SB3; counts environment steps."""
        super().learn(total_timesteps, callback=with_preferences(self.preferences, callback), **arguments)
        return self

    def save(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write a zip of JSON and safetensors: networks, optimiser, reward model and answers, without experience."""
        own = {"preferences": asdict(self.preferences.config)}
        save_agent(self, path, own, self.preferences.learned_state())

    @classmethod
    def load(  # type: ignore[override]
        cls, path: str | Path, env: Any = None, device: torch.device | str = "auto", **changes: Any
    ) -> PrefPPO:
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
