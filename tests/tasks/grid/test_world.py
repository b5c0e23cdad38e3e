from collections import Counter

import numpy as np
import pytest

from prefenvs.tasks.grid.delivery import DELIVERY_MAP, WEIGHTS, delivery_world
from prefenvs.tasks.grid.env import IMPORTANCE
from prefenvs.tasks.grid.random_mdp import (
    BAD_REWARDS,
    GOAL_REWARDS,
    HEIGHTS,
    SHEEP_REWARDS,
    WIDTHS,
    random_grid,
    random_lottery_grid,
    random_sparse_mdp,
)
from prefenvs.tasks.grid.solvers import policy_iteration
from prefenvs.tasks.grid.windy import WINDY_MAP, windy_world
from prefenvs.tasks.grid.world import LEGEND, build_grid

UP, DOWN, LEFT, RIGHT = range(4)


def move(world, state, action):
    """Where a sure move leads, its reward and its features by name."""
    mdp = world.mdp
    end = int(mdp.transitions[state, action].argmax())
    assert mdp.transitions[state, action, end] == 1
    paid = dict(zip(mdp.feature_names, mdp.features[state, action, end], strict=True))
    return end, mdp.rewards[state, action, end], {name: n for name, n in paid.items() if n}


def test_the_delivery_map_has_the_papers_counts():
    counts = Counter("".join(DELIVERY_MAP))
    assert counts == {"G": 1, "S": 4, "#": 3, "c": 5, "r": 5, "m": 14, "C": 1, ".": 67}
    mdp = delivery_world().mdp
    assert (mdp.num_states, mdp.num_actions, np.count_nonzero(mdp.start)) == (100, 4, 92)
    assert mdp.feature_names == ("gas", "goal", "sheep", "coin", "roadblock", "mud")
    np.testing.assert_array_equal(mdp.weights, [-1, 50, -50, 1, -1, -2])
    assert mdp.deterministic


@pytest.mark.parametrize(
    ("letter", "reward", "paid"),
    [
        (".", -1, {"gas"}),
        ("c", 0, {"gas", "coin"}),
        ("r", -2, {"gas", "roadblock"}),
        ("m", -2, {"mud"}),
        ("C", -1, {"mud", "coin"}),
        ("R", -3, {"mud", "roadblock"}),
        ("G", 50, {"goal"}),
        ("S", -50, {"sheep"}),
    ],
)
def test_entering_a_cell_pays_what_it_holds(letter, reward, paid):
    world = build_grid([".." + letter], WEIGHTS, gamma=1.0)
    end, got, features = move(world, 1, RIGHT)
    assert (end, got, features) == (2, reward, dict.fromkeys(paid, 1.0))
    assert world.mdp.terminal[2] == (letter in "GS")


@pytest.mark.parametrize(("letter", "reward"), [(".", -1), ("c", -1), ("r", -1), ("m", -2), ("C", -2), ("R", -2)])
@pytest.mark.parametrize("action", [UP, LEFT, RIGHT], ids=["edge", "corner", "house"])
def test_a_blocked_move_pays_the_ground_it_stays_on(letter, reward, action):
    end, got, _ = move(build_grid([letter + "#", ".G"], WEIGHTS, gamma=1.0), 0, action)
    assert (end, got) == (0, reward)


def test_the_reward_is_linear_on_every_transition():
    # Among them the mud with a coin, to which the authors' released features are all zero.
    for world in (delivery_world(), windy_world(), random_lottery_grid(np.random.default_rng(3))):
        mdp = world.mdp
        np.testing.assert_array_equal(mdp.features @ mdp.weights, mdp.rewards)
        alive = np.broadcast_to(~mdp.terminal[:, None, None], mdp.transitions.shape)
        assert (mdp.features.any(axis=-1) == (alive & (mdp.transitions > 0))).all()


def test_houses_are_never_entered_and_never_started_in():
    world = delivery_world()
    houses = np.array(list("".join(world.rows))) == "#"
    assert not world.mdp.transitions[~houses][:, :, houses].any()
    assert not world.mdp.start[houses].any()


def test_wind_blows_a_step_that_ends_in_it_one_row_down():
    world = windy_world()
    np.testing.assert_array_equal(np.flatnonzero(world.mdp.start), [42])
    onto_bridge = world.mdp.transitions[22, RIGHT]  # (3, 1) to (3, 2), with water at (4, 2)
    assert {int(s): float(onto_bridge[s]) for s in np.flatnonzero(onto_bridge)} == {23: 7 / 8, 30: 1 / 8}
    assert world.mdp.rewards[22, RIGHT, 30] == -5
    climb = world.mdp.transitions[35, UP]  # (5, 0) to (4, 0), perhaps blown back
    assert {int(s): float(climb[s]) for s in np.flatnonzero(climb)} == {28: 7 / 8, 35: 1 / 8}
    assert world.mdp.rewards[35, UP, 35] == -1


def test_the_windy_short_cut_is_worth_what_its_docstring_says():
    v, _ = policy_iteration(windy_world().mdp)
    short = (7 / 8) ** 3 * 5 + (1 / 8) * -6 + (7 / 64) * -7 + (49 / 512) * -8
    assert v[21] == pytest.approx(short) == pytest.approx(1.068, abs=1e-3)
    assert v[0] - 3 == -1  # three steps up, and on from the upper left corner, where the way around is best
    assert "".join(WINDY_MAP).count("G") == 1


def test_a_lottery_ends_in_two_states_of_one_cell():
    world = random_lottery_grid(np.random.default_rng(0), win=70.0)
    mdp = world.mdp
    won = np.arange(25, mdp.num_states)
    assert [world.rows[c // 5][c % 5] for c in world.cell_of_state[won]] == ["L"] * len(won)
    for twin in won:
        cell = world.cell_of_state[twin]
        into = mdp.transitions[:25, :, cell] > 0
        np.testing.assert_array_equal(mdp.transitions[:25, :, twin][into & ~mdp.terminal[:25, None]], 0.5)
        assert set(mdp.rewards[:25, :, twin][mdp.transitions[:25, :, twin] > 0]) <= {70.0}
        assert set(mdp.rewards[:25, :, cell][into & ~mdp.terminal[:25, None]]) <= {-50.0}
    assert not world.goal[won].any()


def test_random_grids_hold_what_was_drawn():
    for seed in range(60):
        world = random_grid(np.random.default_rng(seed))
        counts, cells = Counter("".join(world.rows)), world.shape[0] * world.shape[1]
        assert world.shape[0] in HEIGHTS
        assert world.shape[1] in WIDTHS
        assert counts["G"] == 1
        assert counts["S"] in {int(share * cells + 1e-9) for share in (0, 0.1, 0.3)}
        assert counts["r"] in {int(share * cells + 1e-9) for share in (0, 0.1, 0.5, 0.8)}
        assert counts["c"] in {int(share * cells + 1e-9) for share in (0, 0.1, 0.2)}
        weights = dict(zip(world.mdp.feature_names, world.mdp.weights, strict=True))
        assert (weights["gas"], weights["coin"]) == (-1, 1)
        assert weights["goal"] in GOAL_REWARDS
        assert weights["sheep"] in SHEEP_REWARDS
        assert weights["roadblock"] in BAD_REWARDS
        assert np.count_nonzero(world.mdp.start) == cells - 1 - counts["S"]
        policy_iteration(world.mdp)


def test_lottery_grids_hold_what_was_drawn():
    for seed in range(30):
        world = random_lottery_grid(np.random.default_rng(seed))
        counts = Counter("".join(world.rows))
        assert world.shape == (5, 5)
        assert counts["G"] == 1
        assert counts["L"] in (1, 2, 7)


def test_the_same_seed_draws_the_same_problem():
    for draw in (random_grid, random_lottery_grid, lambda rng: random_sparse_mdp(rng, 8, 3, terminals=1)):
        one, same, other = (draw(np.random.default_rng(seed)) for seed in (5, 5, 6))
        mdps = [getattr(world, "mdp", world) for world in (one, same, other)]
        np.testing.assert_array_equal(mdps[0].transitions, mdps[1].transitions)
        np.testing.assert_array_equal(mdps[0].rewards, mdps[1].rewards)
        assert mdps[0].rewards.shape != mdps[2].rewards.shape or (mdps[0].rewards != mdps[2].rewards).any()


def test_sparse_mdps_have_as_many_successors_as_asked():
    mdp = random_sparse_mdp(np.random.default_rng(0), states=10, actions=3, successors=4, terminals=2)
    assert ((mdp.transitions > 0).sum(axis=-1) == 4).all()
    assert mdp.terminal.sum() == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["..", "."], r"rows of lengths \[2, 1\]"),
        ([], r"rows of lengths \[\]"),
        (["..?G"], r"unknown cells \['\?'\]"),
        (["..L"], r"no entry for \['win'\]"),
    ],
)
def test_a_wrong_map_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        build_grid(rows, WEIGHTS, gamma=1.0)


def test_every_feature_has_a_place_among_the_factors():
    assert {name for cell in LEGEND.values() for name in cell.features} == set(IMPORTANCE)
