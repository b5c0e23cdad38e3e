"""A function replayed from a CUDA graph is the function."""

from functools import partial

import pytest
import torch

from prefenvs.agents.fused import Captured, addresses, side_by_side


def test_on_a_cpu_every_call_is_the_function_itself():
    calls = []
    captured = Captured(lambda x: calls.append(x) or x + 1)
    for _ in range(3):
        assert captured("key", torch.zeros(2)).tolist() == [1, 1]
    assert len(calls) == 3
    assert captured.seconds == 0


@pytest.mark.gpu
def test_on_a_gpu_the_third_call_of_a_kind_is_a_replay(cuda):
    calls, total = [], torch.zeros(2, device=cuda)

    def add(x):
        calls.append(x.shape)
        return total.add_(x).clone()

    captured = Captured(add)
    seen = [captured(addresses([total]), torch.full((2,), float(i), device=cuda)) for i in range(5)]
    assert [x.tolist() for x in seen] == [[0, 0], [1, 1], [3, 3], [6, 6], [10, 10]]
    assert len(calls) == 2, "once as it is, once to record"
    assert captured.seconds > 0
    captured(addresses([total]), torch.ones(1, device=cuda))
    captured("other key", torch.ones(2, device=cuda))
    assert len(calls) == 4, "another shape and another key are called anew"


@pytest.mark.gpu
def test_replays_draw_the_numbers_that_calls_would(cuda):
    def noisy(x):
        return x + torch.empty_like(x).normal_()

    drawn, x = [], torch.zeros(1000, device=cuda)
    for call in (noisy, partial(Captured(noisy), "key")):
        torch.manual_seed(0)
        drawn.append(torch.stack([call(x) for _ in range(5)]))
    assert torch.equal(*drawn)


@pytest.mark.gpu
def test_each_gpu_records_and_replays_for_itself(cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    captured = Captured(lambda x: x.sqrt() + 1)
    for place in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        for i in range(4):
            got = captured(place, torch.full((2,), float(i * i), device=place))
            assert got.tolist() == [i + 1, i + 1]
            assert got.device == torch.device(place)


def test_elsewhere_calls_side_by_side_run_in_their_order():
    order = []
    found = side_by_side(*(lambda i=i: order.append(i) or torch.tensor(i) for i in range(3)))
    assert [int(x) for x in found] == order == [0, 1, 2]


@pytest.mark.gpu
def test_calls_side_by_side_wait_for_what_went_before_and_are_waited_for(cuda):
    def chain(x):
        """(n, n) @ (n, n) and back, so long that a later call would overtake what does not wait."""
        y = x @ x.T / len(x)
        first, second = side_by_side(lambda: y @ x, lambda: (y @ x) @ x.T)
        return (first @ x.T - second) @ x

    captured = Captured(chain)
    for seed in range(6):
        x = torch.randn(2000, 2000, generator=torch.Generator(cuda).manual_seed(seed), device=cuda)
        torch.testing.assert_close(captured("key", x), chain(x), rtol=1e-3, atol=1e-2)
