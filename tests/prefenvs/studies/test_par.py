import numpy as np

from prefenvs.agents.text.exact import completion_probabilities
from prefenvs.studies import par as study
from prefenvs.tasks.text.enumerable import TextEnum
from prefenvs.tasks.text.lm import Tabular


def tables(gold, drop):
    """Tables whose last rows have given numbers, a little different by seed."""
    rng = np.random.default_rng(0)
    rows = {arm: {"gold": gold.get(arm, 0.4), "drop": drop.get(arm, 0.1)} for arm in study.arms("full")}
    return {
        arm: {s: [{key: value + 0.001 * rng.normal() for key, value in row.items()}] for s in study.SEEDS["full"]}
        for arm, row in rows.items()
    }


GOLD = {"par": 0.7, "par M=1": 0.68, "par k=2": 0.7, "centre": 0.5, "centred tanh": 0.5, "centred polynomial": 0.3}
DROP = {"vanilla": 0.3, "par": 0.02}


def outcome(gold=GOLD, drop=DROP):
    return study.check(tables(gold, drop)).outcome


def test_the_claim_holds_where_it_should():
    assert outcome() == "holds"


def test_each_part_of_the_claim_can_fail():
    assert outcome({**GOLD, "min-max": 0.6}) == "fails"
    assert outcome({**GOLD, "par M=1": 0.6}) == "fails"
    assert outcome({**GOLD, "par M=1": 0.8}) == "fails"
    assert outcome({**GOLD, "centre": 0.3}) == "fails"  # two of five functions are then worse centred
    assert outcome(drop={**DROP, "vanilla": 0.1}) == "fails"
    assert outcome(drop={**DROP, "par": 0.2}) == "fails"


def test_exchanged_arms_do_not_hold():
    found = tables(GOLD, DROP)
    for other in ("vanilla", "clip", "min-max"):
        assert study.check({**found, "par": found[other], other: found["par"]}).outcome == "fails"


def test_the_proxy_knows_neither_the_end_nor_what_is_said_again():
    task = TextEnum()
    policy = Tabular.of(task.language)
    law, counts = completion_probabilities(policy, task), task.bigram_counts()
    proxy = study.proxy_reward(task, law, counts, np.random.default_rng(0))
    listed = task.completions().tolist()
    prompt = task.language.prompt_tokens[:, -1].tolist().index(1)
    one, two, three = (proxy[prompt, listed.index([1] * n + [0] * (4 - n))] for n in (1, 2, 3))
    np.testing.assert_allclose(three - two, two - one)
    np.testing.assert_allclose((law * proxy).sum(), 0.0, atol=1e-6)
