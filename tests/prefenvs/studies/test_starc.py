from itertools import permutations

import pytest

from prefenvs.studies import starc


@pytest.fixture(scope="module")
def tables():
    return {arm: {seed: starc.run(arm, seed, "smoke") for seed in starc.SEEDS["smoke"]} for arm in starc.arms("smoke")}


def test_the_claim_holds_on_few_problems_and_depends_on_which_arm_is_which(tables):
    assert starc.check(tables).outcome == "holds"
    for names in permutations(tables):
        if names != tuple(tables):
            swapped = dict(zip(names, tables.values(), strict=True))
            assert starc.check(swapped).outcome == "fails", names


def test_arms_see_the_same_pairs_and_seeds_other_ones(tables):
    regrets = {arm: [row["greatest regret"] for row in seeds[0]] for arm, seeds in tables.items()}
    assert regrets["starc"] == regrets["epic"] == regrets["dard"]
    assert [row["greatest regret"] for row in tables["starc"][1]] != regrets["starc"]
    assert starc.run("starc", 0, "smoke")[0] == tables["starc"][0][0]
