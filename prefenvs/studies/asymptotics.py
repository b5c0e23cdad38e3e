"""Exact, no learning: sequences of m independent tokens from random vocabularies, with a reward summed over tokens.

A vocabulary of V tokens has a random reference p, and rewards 0, 1 / (V - 1), ..., 1: log q for the aligned model q of
the paper, up to a constant and a unit. Four arms spend a KL of delta a token: `tilt` is p exp(rho r) at the rho that
spends all of it; `best-of-n` is the exact law of the best of exp(m delta) sequences; `random` draws 1000 policies and
`gradient` takes four steps from random ones along the sphere of that KL, and each keeps its best. All numbers are the
worst over vocabularies, deltas and seeds. The statements were derived anew from the paper's abstract. What PPO and
best-of-N reach with a language model is not part of this study.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from prefenvs.metrics import kl_frontier
from prefenvs.studies import Paper, Table, Tables, Verdict, decide, per_seed, runs, within

PAPER = Paper(
    card="52",
    name="asymptotics",
    title="Asymptotics of Language Model Alignment",
    authors="Yang, Salamatian, Sun, Suresh and Beirami",
    year=2024,
    arxiv="2404.01730",
)
CLAIM = (
    "Within a KL of delta a token no policy has more reward than the tilt p exp(rho r), and one nearly as good is near "
    "it. The reward a token of the best of exp(m delta) sequences comes closer to the tilt's with every doubling of m, "
    "to 0.006 at m = 800, and the tails of the tilt's reward fall at the rate that its cumulant gives."
)
MARGIN = {
    "reward of a rival above the tilt's": 1e-8,
    "KL above delta": 1e-9,
    "error of the Pythagorean identity": 1e-10,
    "distance to the tilt beyond rho x gap of reward": 1e-9,
    "gap of the gradient search": 5e-4,
    "gap of best-of-n at m = 800": 0.006,
    "change of that gap when m doubles": -5e-4,
    "relative error of the tail's rate": 0.05,
}
"""Most that each number may be."""
PARTS = ("exact KL policy", "best-of-N law", "rate function")
TESTS = ("tests/prefenvs/metrics/test_card52_asymptotics.py",)
SEEDS = {"smoke": (0, 1), "full": (100, 101, 102, 103, 104)}
VOCABULARIES = {"smoke": (2, 5), "full": (2, 3, 5, 8)}
DELTAS = (0.05, 0.1)
TOKENS = (25, 50, 100, 200, 400, 800)


def arms(scale: str) -> tuple[str, ...]:
    """The four ways to spend the KL."""
    return ("tilt", "best-of-n", "random", "gradient")


def run(arm: str, seed: int, scale: str) -> Table:
    """A row for each vocabulary, delta and m, of what the arm's best policy has a token, and the most that any has."""
    rows = []
    for size, delta in itertools.product(VOCABULARIES[scale], DELTAS):
        p = (np.random.default_rng([seed, size]).dirichlet(np.ones(size)) + 1 / size) / 2
        r = np.arange(size) / (size - 1)
        rho = kl_frontier.tilt_for_kl(p, r, delta)
        policies = token_policies(arm, p, r, rho, delta, np.random.default_rng([seed, size, 1]))
        laws = {m: kl_frontier.law_of_sum(policies[-1], m) for m in TOKENS}  # of the rewards of m tokens
        if arm == "best-of-n":
            laws = {m: kl_frontier.best_of_n(law, np.arange(len(law)), np.exp(m * delta)) for m, law in laws.items()}
        tail = error_of_tail(laws, kl_frontier.exact_kl_policy(p, r, rho), r)
        for m, law in laws.items():
            if arm == "best-of-n":  # outcomes are rewards of m tokens; else m tokens are m times one token
                psi, base, paid, tokens = law[None], kl_frontier.law_of_sum(p, m), np.arange(len(law)) / (size - 1), m
            else:
                psi, base, paid, tokens = policies, p, r, 1
            kl, beyond, error = kl_frontier.from_optimum(psi, base, paid, rho, tokens)
            found = {"reward": psi[-1] @ paid / tokens, "kl": kl.max(), "beyond": beyond.max()}
            found |= {"identity": np.abs(error).max(), "tail": tail}
            rows.append({"vocabulary": size, "delta": delta, "m": m, **{key: float(x) for key, x in found.items()}})
    return rows


def token_policies(arm: str, p: np.ndarray, r: np.ndarray, rho: np.ndarray, delta: float, rng: Any) -> np.ndarray:
    """(c, V) policies over one token, the best last. Best-of-n, which has none, is given the reference."""
    if arm in ("tilt", "best-of-n"):
        return kl_frontier.exact_kl_policy(p, r, rho if arm == "tilt" else 0.0)[None]
    found = kl_frontier.mixed_to_kl(rng.dirichlet(np.ones(len(p)), 1000), p, delta)
    found = kl_frontier.climbed(found, p, r, delta, steps=4 if arm == "gradient" else 0)
    return found[np.argsort(found @ r)]


def error_of_tail(laws: dict[int, np.ndarray], phi: np.ndarray, r: np.ndarray) -> float:
    """Worst relative error of the slope of log P(reward a token >= x) in m, from 400 to 800, to the tilt's rate.

    x are the multiples of 1/400 above the mean whose rate is 0.03 to 0.3; nearer, log m still weighs in the slope.
    """
    x = np.arange(1, 400) / 400
    rate = kl_frontier.rate_function(phi, r, x)
    kept = (x > phi @ r) & (rate >= 0.03) & (rate <= 0.3)
    tails = [np.cumsum(laws[m][::-1])[::-1][np.rint(x[kept] * (len(laws[m]) - 1)).astype(int)] for m in (400, 800)]
    return float(np.abs(np.log(tails[0] / tails[1]) / 400 / rate[kept] - 1).max())


def check(tables: Tables) -> Verdict:
    """Each statement at its worst. Nothing is sampled from a population, so there are no intervals."""
    every = {key: np.array([runs(tables, arm, key) for arm in tables]) for key in ("delta", "kl", "identity", "beyond")}
    reward = {arm: np.array(runs(tables, arm, "reward")) for arm in tables}  # (seeds, rows)
    gaps = {arm: reward["tilt"] - mine for arm, mine in reward.items()}
    ours = gaps["best-of-n"].reshape(-1, len(TOKENS))
    worst = (
        max(-gap.min() for gap in gaps.values()),
        (every["kl"] - every["delta"]).max(),
        every["identity"].max(),
        every["beyond"].max(),
        gaps["gradient"].max(),
        ours[:, -1].max(),
        np.diff(ours, axis=1).max(),
        np.max(runs(tables, "tilt", "tail")),
    )
    return decide(*(within(name, value, MARGIN[name]) for name, value in zip(MARGIN, worst, strict=True)))


def summary(tables: Tables) -> Table:
    """Gaps of reward a token to the tilt, mean over vocabularies and seeds, by delta and m."""
    return [
        {"delta": delta, "tokens m": m} | {f"gap of {arm}": gap(tables, arm, delta=delta, m=m) for arm in arms("")[1:]}
        for delta in DELTAS
        for m in TOKENS
    ]


def draw(tables: Tables, figure: Any) -> None:
    """The gap of best-of-n against m."""
    axes = figure.subplots()
    sizes = sorted({row["vocabulary"] for table in tables["tilt"].values() for row in table})
    for place, size in enumerate(sizes):
        for delta, line in zip(DELTAS, ("-", "--"), strict=True):
            gaps = [gap(tables, "best-of-n", vocabulary=size, delta=delta, m=m) for m in TOKENS]
            axes.loglog(TOKENS, gaps, f"C{place}o{line}", markersize=4, label=f"vocabulary {size}, delta {delta}")
    axes.set(xlabel="tokens a sequence, m", ylabel="reward a token below the tilt's")
    axes.set_xticks(TOKENS, map(str, TOKENS))
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)


def gap(tables: Tables, arm: str, **where: Any) -> float:
    """Mean over seeds of an arm's gap of reward a token to the tilt."""
    tilt, mine = (per_seed(tables, name, "reward", **where) for name in ("tilt", arm))
    return float(np.mean(tilt - mine))
