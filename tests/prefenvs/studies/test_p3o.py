import numpy as np
import pytest

from prefenvs.studies import p3o as study

GOLD = {"p3o x1": 1.0, "p3o x4": 0.9, "p3o joint x4": 0.9, "ppo x1": 0.9, "ppo x4": 0.8, "rloo x1": 1.0, "dpo": 0.8}
FALLS = {"ppo x1": 0.2, "ppo x4": 0.2}


def tables(gold=GOLD, falls=FALLS, moved=0.0):
    """Tables of one checkpoint in which an arm's gold is as given, a little different by seed."""
    rng, found = np.random.default_rng(0), {}
    noise = {arm: 0.001 * rng.normal(size=5) for arm in gold}
    for arm in study.arms("full"):
        plain = arm.removesuffix(" moved")
        fall = (falls.get(plain, moved)) * (plain != arm)
        values = [gold[plain] + float(each) - fall for each in noise[plain]]
        found[arm] = {
            s: [{"kl": 1.0, "gold": v, "matched": v}] for s, v in zip(study.SEEDS["full"], values, strict=True)
        }
    return found


def test_the_claim_holds_where_it_should():
    assert study.check(tables()).outcome == "holds"


def test_each_part_of_the_claim_can_fail():
    assert study.check(tables({**GOLD, "ppo x4": 0.88})).outcome == "fails"
    assert study.check(tables({**GOLD, "dpo": 1.1})).outcome == "fails"
    assert study.check(tables(falls={"ppo x1": 0.2, "ppo x4": 0.01})).outcome == "fails"
    assert study.check(tables(moved=1e-12)).outcome == "fails"


def test_exchanging_p3o_with_ppo_does_not_hold():
    found = tables()
    mixed = {arm: found[arm.replace("p3o", "ppo") if arm.startswith("p3o x") else arm] for arm in found}
    assert study.check(mixed).outcome == "fails"


@pytest.mark.parametrize("arm", ["p3o x4", "p3o joint x4"])
def test_offsets_change_no_number_of_p3o(arm):
    assert study.run(arm, 0, "smoke") == study.run(f"{arm} moved", 0, "smoke")


def test_offsets_change_ppo_and_one_pass_of_p3o_is_rloo_of_two():
    assert study.run("ppo x1", 0, "smoke")[-1]["gold"] != study.run("ppo x1 moved", 0, "smoke")[-1]["gold"]
    ours, theirs = (study.run(arm, 0, "smoke") for arm in ("p3o x1", "rloo x1"))
    for one, other in zip(ours, theirs, strict=True):
        assert one["gold"] == pytest.approx(other["gold"], abs=1e-3)
