"""D-eta-N: a quantile DQN that sees its stock and acts on a functional of stock plus return."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

from prefenvs.agents.distributional.exact import Solution, evaluate
from prefenvs.agents.distributional.functionals import (
    CVaR,
    Homeostasis,
    OptimisticCVaR,
    check_optimisable,
    describe_functional,
    make_functional,
)
from prefenvs.agents.distributional.stock import STOCK, StockVecEnv, with_stock
from prefenvs.agents.distributional.stock_graph import StockGraph
from prefenvs.agents.saving import read_saved, restore_agent, save_agent
from prefenvs.tasks.grid.tabular import TabularMDP


def quantile_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Quantile regression, weighed so that all quantiles learn alike. Dabney et al. 2018, eq. 8, arXiv:1710.10044.

    loss_b = sum_i w_i mean_j (tau_i - 1(u < 0)) u with u = target_j - predicted_i and tau_i = (i + 1/2) / N.

    The weights w_i = 1 / (4 tau_i (1 - tau_i)), 1 at the median, are ours. With them a quantile below all targets rises
    by a gradient of 1 / (4 (1 - tau_i)). Without them it rises by tau_i, which for a low one the noise of the others
    drowns, so that it keeps the worth of an early, bad policy; CVaR is made of low quantiles.

    Without the Huber smoothing of that paper: a quantile within kappa of several outcomes becomes a mean of them, so
    kappa = 1 blurs laws of rewards of order 1, and a blurred law has too little shortfall.

    Sorted targets need O((M + N) log M) in place of M N pairs: with k of them below a quantile q and S their sum,
    mean_j = tau (mean(target) - q) + (k q - S) / M.

    Args:
        predicted: (B, N) quantiles, in units of reward.
        target: (B, M) samples of equal weight; no gradient goes through them.

    Returns:
        (B,) losses, in units of reward.
    """
    n, m = predicted.shape[1], target.shape[1]
    levels = (torch.arange(n, device=predicted.device) + 0.5) / n
    ordered = target.detach().sort(dim=1).values
    below = torch.searchsorted(ordered, predicted.detach())  # (B, N) how many targets are less
    sums = F.pad(ordered.cumsum(1), (1, 0)).gather(1, below)
    losses = levels * (ordered.mean(1, keepdim=True) - predicted) + (below * predicted - sums) / m
    return (losses / (4 * levels * (1 - levels))).sum(1)


class StockExtractor(CombinedExtractor):
    """SB3's features of the observation times features of the stock: each with each, a 1 among either.

    What is best changes abruptly with the stock c: one unit more can turn a gamble into a needless risk. A network of
    c / scale alone is too smooth for that, so sines and cosines of it come along. Tancik et al. 2020, Fourier features
    let networks learn high frequency functions, arXiv:2006.10739; periods are ours. By the products a one-hot state has
    weights of its own for each of them, which steps from other states do not pull at.
    """

    def __init__(self, observation_space: spaces.Dict, stock_scale: float) -> None:
        """Features of an observation with stocks that are mostly within -scale to scale."""
        parts = dict(observation_space.spaces)
        stock = parts.pop(STOCK)
        super().__init__(spaces.Dict(parts))
        self.stock_scale = stock_scale
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", torch.pi / 2 * 2.0 ** torch.arange(OCTAVES), persistent=False)
        self._features_dim = (1 + self._features_dim) * (1 + stock.shape[0] * (1 + 2 * OCTAVES))  # type: ignore[index]

    def forward(self, observations: Any) -> torch.Tensor:
        """(B, features) from preprocessed observations."""
        stock = observations[STOCK] / self.stock_scale  # (B, d)
        angles = (stock[:, :, None] * self.frequencies).flatten(1)
        of_stock = F.pad(torch.cat([stock, angles.sin(), angles.cos()], dim=1), (1, 0), value=1.0)
        of_rest = F.pad(super().forward(observations), (1, 0), value=1.0)
        return (of_rest[:, :, None] * of_stock[:, None, :]).flatten(1)


OCTAVES = 6
"""Periods of the stock's sines: 4, 2, 1, 1/2, 1/4 and 1/8 of the scale."""


class QuantileNetwork(QNetwork):
    """Quantiles (B, A, N) of the return of each action, from an observation with its stock."""

    def __init__(self, *args: Any, functional: Any, quantiles: int, **kwargs: Any) -> None:
        """As SB3's QNetwork; acts on E f(stock + return), f of `functional`."""
        super().__init__(*args, **kwargs)
        self.functional, self.quantiles = functional, quantiles
        last: Any = self.q_net[-1]
        self.q_net[-1] = torch.nn.Linear(last.in_features, last.out_features * quantiles)

    def forward(self, obs: Any) -> torch.Tensor:
        """(B, A, N) quantiles of the return, in units of reward; not sorted."""
        return super().forward(obs).unflatten(1, (-1, self.quantiles))

    def worth(self, obs: Any) -> torch.Tensor:
        """(B, A) of E f(c + G) for each action."""
        return self.functional.utility(obs[STOCK][:, :, None] + self(obs)).mean(-1)

    def _predict(self, observation: Any, deterministic: bool = True) -> torch.Tensor:
        return self.worth(observation).argmax(1)


class QuantilePolicy(DQNPolicy):
    """SB3's DQN policy with a `QuantileNetwork`."""

    def __init__(self, *args: Any, functional: Any, quantiles: int, stock_scale: float, **kwargs: Any) -> None:
        """As SB3's, with what the network needs."""
        self.quantile_args = {"functional": functional, "quantiles": quantiles}
        extractor = {
            "features_extractor_class": StockExtractor,
            "features_extractor_kwargs": {"stock_scale": stock_scale},
        }
        super().__init__(*args, **{**extractor, **kwargs})

    def make_q_net(self) -> QNetwork:
        """A new network."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return QuantileNetwork(**arguments, **self.quantile_args).to(self.device)


class QuantileDQN(DQN):
    """Learns to maximise a functional of the return's distribution. D-eta-N of Pires et al. 2025, arXiv:2501.13028.

    A DQN whose network takes (observation, stock) and gives quantiles of the return of each action; it acts by
    argmax_a K(law(c + G)), also in its targets, where c' = (c + r) / gamma. For CVaR the initial stock c_0 = -b is
    chosen at reset among `stocks`, from the learnt distribution: see `initial_stock`. Rewards are scalar, and those of
    an environment that shows them, or of a `LearnedReward` around preference environments.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> from prefenvs.agents import QuantileDQN, StockWrapper
        >>> env = gym.make("prefenvs/GridLedge-v0", evaluation=True)
        >>> cvar = {"name": "cvar", "tau": 0.25}
        >>> model = QuantileDQN("MlpPolicy", env, functional=cvar, stocks=range(-8, 13), seed=0)
        >>> model = model.learn(200)
        >>> play = StockWrapper(env, model.gamma, initial_stock=model.initial_stock)
        >>> observation, _ = play.reset(seed=0)
        >>> action, _ = model.predict(observation, deterministic=True)
    """

    policy_aliases = {"MultiInputPolicy": QuantilePolicy}

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        functional: Any = "mean",
        stocks: Sequence[float] = (0.0,),
        quantiles: int = 64,
        relabel_stocks: Sequence[float] = (),
        gamma: float = 1.0,
        **dqn: Any,
    ) -> None:
        """Make a learner.

        Args:
            policy: "MlpPolicy", for any observation: images get SB3's CNN.
            env: a Gymnasium environment or an SB3 VecEnv, without a stock.
            functional: what to maximise: a functional, its name in FUNCTIONALS, or `{"name": ..., **arguments}`.
            stocks: initial stocks that training episodes begin with, drawn uniformly; for CVaR minus the thresholds b.
            quantiles: of the return of each action, N.
            relabel_stocks: give replayed steps stocks drawn from these, which their known dynamics allow. Give all that
                matter on the way: what lies far from a decision, as after a long bad episode, is then not learned for.
                Empty keeps the stocks that were met, as the paper's agent.
            gamma: discount of the return and the stock.
            **dqn: as SB3's DQN.

        Raises:
            ValueError: the functional cannot be optimised, or the environment hides its reward.
        """
        functional = make_functional(functional)
        utility = getattr(functional, "inner", functional)
        check_optimisable(utility, gamma)
        if isinstance(functional, Homeostasis):
            raise ValueError(f"{functional!r} is of vector rewards, which this agent does not learn. Use Target().")
        self.functional, self.stocks = functional, tuple(float(stock) for stock in stocks)
        self.quantiles = quantiles
        self.relabel_stocks = tuple(float(stock) for stock in relabel_stocks)
        if not self.stocks:
            raise ValueError("stocks is empty; give the initial stocks to learn for, such as (0.0,).")
        venv = self._wrap_env(env, verbose=0, monitor_wrapper=True)
        scale = max(1.0, *map(abs, self.stocks + self.relabel_stocks))
        self._network = {"functional": utility, "quantiles": quantiles, "stock_scale": scale}
        super().__init__(
            "MultiInputPolicy" if policy == "MlpPolicy" else policy,  # with its stock any observation is a Dict
            StockVecEnv(venv, gamma, self._draw_stocks),
            gamma=gamma,
            **dqn,
        )

    def _setup_model(self) -> None:
        # Bound here and not put into policy_kwargs, which are the user's and are saved as such.
        self.policy_class: Any = partial(self.policy_class, **self._network)
        super()._setup_model()

    def _draw_stocks(self, episodes: int, rng: np.random.Generator) -> np.ndarray:
        """Initial stocks of training episodes."""
        return rng.choice(self.stocks, size=episodes)

    @torch.no_grad()
    def initial_stock(self, observation: Any) -> float:
        """The initial stock for an episode that begins with an observation, from the learnt distribution alone.

        c_0 = -b for the b of `stocks` that is best for CVaR, or the only one of `stocks`.

        Raises:
            ValueError: there are several, and the functional does not tell between them.
        """
        if len(self.stocks) == 1:
            return self.stocks[0]
        if not isinstance(self.functional, (CVaR, OptimisticCVaR)):
            raise ValueError(
                f"{self.functional!r} leaves the initial stock to you, and this agent learned for "
                f"{len(self.stocks)} of them. Give StockWrapper a number."
            )
        stocks = np.array(self.stocks)
        repeated = _repeat(observation, len(stocks))
        batch, _ = self.policy.obs_to_tensor(with_stock(repeated, stocks[:, None]))
        network: Any = self.q_net
        worth = network.worth(batch).amax(1).cpu().numpy()
        return float(stocks[self.functional.by_b(-stocks, worth).argmax()])

    def solution(self, mdp: TabularMDP, horizon: int) -> Solution:
        """The exact laws of the greedy policy in a problem with one start, from the initial stock chosen there."""
        graph = StockGraph.build(mdp, horizon, [self.initial_stock(mdp.start.argmax())])
        shown = ({"observation": level.states, STOCK: level.stocks.astype(np.float32)} for level in graph.levels[:-1])
        return evaluate(graph, [self.predict(batch, deterministic=True)[0] for batch in shown])

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Fit the quantiles to samples of r + gamma G'."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            loss = quantile_loss(*self._prediction_and_target(data)).mean()
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            losses.append(loss.detach())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", torch.stack(losses).mean().item())

    def _prediction_and_target(self, data: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N) quantiles of the actions taken, and the (B, N) targets that they should have."""
        discounts = self.gamma if data.discounts is None else data.discounts
        before, after = data.observations, data.next_observations
        if self.relabel_stocks:
            choices = torch.tensor(self.relabel_stocks, device=self.device)
            stocks = choices[torch.randint(len(choices), data.rewards.shape, device=self.device)]
            before, after = {**before, STOCK: stocks}, {**after, STOCK: (stocks + data.rewards) / discounts}
        rows = torch.arange(len(data.actions), device=self.device)
        with torch.no_grad():
            network: Any = self.q_net_target
            quantiles = network(after)  # (B, A, N)
            best = network.functional.utility(after[STOCK][:, :, None] + quantiles).mean(-1).argmax(1)
            target = data.rewards + (1 - data.dones) * discounts * quantiles[rows, best]
        return self.q_net(before)[rows, data.actions[:, 0].long()], target

    def save(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write a zip of JSON and safetensors: networks and optimiser, without experience.

        Raises:
            ValueError: if the functional is not registered or holds a function, which JSON cannot keep.
        """
        save_agent(self, path, {"functional": describe_functional(self.functional)}, {})

    @classmethod
    def load(  # type: ignore[override]
        cls, path: str | Path, env: Any = None, device: torch.device | str = "auto", **changes: Any
    ) -> QuantileDQN:
        """Read what `save` wrote, with `changes` of the constructor's arguments; `env` is as the constructor takes.

        Raises:
            DamagedFile: if the file cannot be read.
            RunMismatch: if it holds another kind of agent, or one for other spaces.
            ValueError: without `env`.
        """
        if env is None:
            raise ValueError(f"{cls.__name__}.load needs env=: an environment of the kind that it was trained on.")
        facts, arrays = read_saved(cls, path, changes)
        model = cls(env=env, device=device, **{**facts["own"], **facts["settings"], **changes})
        restore_agent(model, path, facts, arrays)
        return model


def _repeat(observation: Any, times: int) -> Any:
    """A batch of the same observation."""
    if isinstance(observation, dict):
        return {key: _repeat(part, times) for key, part in observation.items()}
    return np.repeat(np.asarray(observation)[None], times, axis=0)
