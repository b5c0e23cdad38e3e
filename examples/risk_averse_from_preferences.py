"""A policy that is careful about bad luck, learned from preferences on a known map: how it walks, and what it earns.

The windy ledge has a short way above the water and a long way around. A teacher compares walks and thereby says what
water, goal and steps are worth. Planning with those worths for the mean takes the short way; planning for the mean of
the worst quarter of outcomes (CVaR) goes around, unless bad luck at the start left little to lose.
"""

import sys

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure

import prefenvs
from prefenvs.agents.distributional import CVaR, Mean, StockGraph, best_cvar, evaluate, value_iteration
from prefenvs.agents.reward_models.linear import fit_linear, random_weights
from prefenvs.agents.reward_models.linear_regret import linear_model
from prefenvs.tasks.grid.drawing import draw_pixels
from prefenvs.tasks.grid.ledge import ledge_world
from prefenvs.tasks.grid.solvers import policies_for_weights
from prefenvs.tasks.grid.world import MOVES

picture = sys.argv[1] if len(sys.argv) > 1 else "risk_averse.png"
rng, steps, queries, tau, horizon = np.random.default_rng(0), 6000, 1000, 0.25, 20

# Walks to ask about, each halfway best for rewards drawn at random: they get everywhere, as random walks do not.
env = gym.make("prefenvs/GridLedge-v0", budget=queries, recorded_episodes=steps)
feedback = prefenvs.feedback(env)
store = prefenvs.SegmentStore(env.observation_space, env.action_space, num_envs=1, task="GridLedge")
wishes = policies_for_weights(ledge_world(gamma=0.99).mdp, random_weights(50, 4, rng))  # (50, S, A)
wish, (observation, info) = wishes[0], env.reset(seed=0)
for _ in range(steps):
    action = np.int64(rng.choice(4, p=(wish[observation] + 0.25) / 2))
    after, _, terminated, truncated, info = env.step(action)  # the reward is hidden, always 0.0
    step = (observation, action, after, terminated, truncated, info["segment_id"])
    store.add(*(np.asarray(part)[None] for part in step))
    observation = after
    if terminated or truncated:
        wish, (observation, info) = rng.choice(wishes), env.reset()
query = prefenvs.Query(store.sample(2 * queries, steps=20, rng=rng))
label = feedback.ask(query)

# Answers fix the worths up to a common scale. A step is our unit, and halves of it keep the laws small and exact.
world = ledge_world()
truth = world.mdp  # its own rewards are for what is printed and drawn alone
model = linear_model("partial_return", truth, rng=rng)
fit_linear(model, query.segments.torch("cpu"), label.choice)
worths = model.weights[0].detach().numpy()
learned = truth.with_weights(np.round(2 * worths / abs(worths[0])) / 2)
careful = best_cvar(learned, tau, horizon).parts[0]
bold = value_iteration(StockGraph.build(learned, horizon, [0.0]), Mean())
policies = {"mean": (bold, 0.0), "CVaR": (careful.solution, careful.initial_stock)}

figure = Figure(figsize=(12, 4), layout="constrained")
*maps, cdf = figure.subplots(1, 3)
for ax, (name, (solution, stock)) in zip(maps, policies.items(), strict=True):
    # A policy looks at its stock of learned rewards; the true ones are added up beside it.
    both = StockGraph.build(truth, horizon, [[stock, 0.0]], np.stack([learned.rewards, truth.rewards], -1))
    choices = []
    for t, level in enumerate(both.levels[:-1]):
        pairs = zip(level.states, level.stocks[:, 0], strict=True)
        choices.append(np.array([solution.action(t, state, earned) for state, earned in pairs]))
    played = evaluate(both, choices)
    (returns, chances), visits = (both.atoms[:, 1], played.start_laws()[0]), played.visits()
    worst = CVaR(tau)(returns, chances)
    print(f"best {name}: true return {returns @ chances:.2f} in the mean, {worst:.2f} in the worst quarter")
    states, actions = np.nonzero(visits > 0.01)
    rows, columns = np.divmod(states, 7)
    down, right = np.array(MOVES)[actions].T
    ax.imshow(draw_pixels(world, int(truth.start.argmax())), extent=(-0.5, 6.5, 6.5, -0.5))  # 7 x 7 cells
    ax.quiver(columns, rows, right, -down, alpha=visits[states, actions].clip(max=1), scale=12)
    ax.set(title=f"best {name} of learned rewards", xticks=[], yticks=[])
    order = returns.argsort()
    cdf.step(returns[order], chances[order].cumsum(), where="post", label=name)
cdf.set(xlabel="true return", ylabel="probability of at most that", xlim=(-20, 5))
cdf.legend()
figure.savefig(picture)
print(f"asked {feedback.asked} questions; learned worths of {truth.feature_names}: {learned.weights}")
