import numpy as np

from prefenvs.agents.regret_check import played_segments, regret_fit
from prefenvs.oracles import expert_values


def test_the_policys_own_segments_have_no_regret_by_playing_on():
    values = expert_values("Pendulum")
    segments, played = played_segments("Pendulum", values, [values.act], count=12, steps=10, seed=0)
    own = np.abs(segments.actions - values.act(segments.observations[:, :-1])).max((1, 2)) < 1e-5
    assert own.any() and not own.all()
    np.testing.assert_allclose(played[own], 0.0, atol=0.5)  # what TAIL leaves out
    assert played[~own].mean() < -1


def test_shipped_values_tell_regret_of_behaviour_they_were_not_fitted_to():
    values = expert_values("Pendulum")
    others = [values.act, lambda s: -values.act(s), lambda s: np.zeros((len(s), 1), np.float32)]
    found = regret_fit("Pendulum", values, others, count=40, seed=9)
    assert found["rank_correlation"] > 0.7
    assert found["correlation"] > 0.9
    assert found["rms"] < 0.5 * found["sd"]
