import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.labelling.random_stream import open_interval, philox, uniforms


def test_philox_equals_numpys():
    key = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
    counters = np.array([[0, 0, 0, 0], [5, 7, 0, 0], [2**64 - 2, 3, 2**63, 1]], np.uint64)
    ours = philox(counters, key)
    for counter, words in zip(counters, ours, strict=True):
        # numpy adds one to the counter before the first block
        before = sum(int(word) << 64 * place for place, word in enumerate(counter)) - 1
        generator = np.random.Philox(counter=before % 2**256, key=key[0] | key[1] << 64)
        assert generator.random_raw(4).tolist() == words.tolist()


word = st.integers(0, 2**64 - 1)


@given(st.lists(word, min_size=4, max_size=4), st.tuples(word, word))
def test_philox_equals_numpys_everywhere(counter, key):
    before = sum(part << 64 * place for place, part in enumerate(counter)) - 1
    generator = np.random.Philox(counter=before % 2**256, key=key[0] | key[1] << 64)
    assert generator.random_raw(4).tolist() == philox(np.array([counter], np.uint64), key)[0].tolist()


def test_uniforms_never_reach_their_ends():
    """Logarithms of a draw and of one minus it are taken, so the ends of the range of bits must stay inside (0, 1)."""
    lowest, highest = open_interval(np.array([0, 2**64 - 1], np.uint64))
    assert 0.0 < lowest < highest < 1.0


def test_a_row_depends_on_its_number_alone():
    numbers = np.arange(100)
    whole = uniforms(7, numbers, 6)
    shuffled = np.random.default_rng(0).permutation(numbers)
    np.testing.assert_array_equal(uniforms(7, shuffled, 6), whole[shuffled])
    np.testing.assert_array_equal(uniforms(7, numbers[40:41], 3), whole[40:41, :3])
    assert not np.isclose(uniforms(8, numbers, 6), whole).any()


def test_uniforms_are_uniform():
    draws = uniforms(0, np.arange(20_000), 5)
    assert 0 < draws.min() < draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.03
