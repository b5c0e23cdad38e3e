from prefenvs.studies.regret_continuous import check, run

SEEDS = range(5)


def tables(returns):
    """Tables of five seeds, by arm: the return, and a STARC distance that falls as it rises."""
    labels = (30, 100, 300)
    return {
        arm: {s: [{"labels": n, "return": r + 0.01 * s, "starc": 0.6 - 0.5 * r} for n in labels] for s in SEEDS}
        for arm, r in returns.items()
    }


def test_the_claim_holds_where_each_learner_is_good_on_labels_of_its_own_kind_and_fails_else():
    good = {
        "regret to regret": 1.0,
        "regret to partial_return": 0.2,
        "partial_return to partial_return": 0.9,
        "partial_return to regret": 0.3,
    }
    assert check(tables(good)).outcome == "holds"
    assert check(tables({**good, "regret to partial_return": 1.0})).outcome == "fails"
    assert check(tables({**good, "partial_return to regret": 1.0})).outcome == "fails"
    assert check(tables({**good, "regret to regret": 0.85})).outcome == "fails"


def test_a_run_repeats():
    first, second = (run("regret to regret", 0, "smoke") for _ in range(2))
    assert first == second
    assert [row["labels"] for row in first] == [10, 30]
    assert all(0 <= row["starc"] <= 1 and row["return"] < 1.2 for row in first)
