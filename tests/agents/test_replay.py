"""The tensor replay buffer draws what Stable-Baselines3's draws."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer

from prefenvs.agents.replay import FIELDS, TensorReplayBuffer

SPACES = {
    "boxes": (gym.spaces.Box(-1, 1, (3,), np.float64), gym.spaces.Box(-2, 2, (2,), np.float64)),
    "images": (gym.spaces.Box(0, 255, (4, 4, 3), np.uint8), gym.spaces.Box(-1, 1, (1,))),
    "discrete": (gym.spaces.Discrete(5), gym.spaces.Discrete(3)),
}


def filled(cls, spaces, n_envs, steps, size=40, device="cpu", **arguments):
    """A buffer after `steps` steps of random experience, the same for each class."""
    buffer = cls(size, *spaces, device=device, n_envs=n_envs, **arguments)
    rng = np.random.default_rng(0)
    for space in spaces:
        space.seed(0)
    for _ in range(steps):
        first, second = (np.stack([spaces[0].sample() for _ in range(n_envs)]) for _ in range(2))
        act = np.stack([spaces[1].sample() for _ in range(n_envs)])
        done, cut = rng.random((2, n_envs)) < 0.5
        infos = [{"TimeLimit.truncated": bool(flag)} for flag in cut]
        buffer.add(first, second, act, rng.normal(size=n_envs), done, infos)
    return buffer


@pytest.mark.parametrize("spaces", SPACES.values(), ids=SPACES.keys())
@pytest.mark.parametrize(("n_envs", "steps"), [(1, 30), (3, 9), (3, 30)])
def test_the_same_seed_draws_the_same_batch_as_sb3(spaces, n_envs, steps, device):
    buffers = [filled(ReplayBuffer, spaces, n_envs, steps)]
    buffers.append(filled(TensorReplayBuffer, spaces, n_envs, steps, device=device))
    batches = []
    for buffer in buffers:
        np.random.seed(0)  # SB3 draws from numpy's global generator
        batches.append(buffer.sample(16))
    assert buffers[0].size() == buffers[1].size()
    for ours, theirs in zip(batches[1], batches[0], strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours.cpu(), theirs.to(ours.dtype), rtol=0, atol=0)


def test_without_timeout_handling_a_cut_is_an_end():
    buffer = filled(TensorReplayBuffer, SPACES["boxes"], 2, 10, handle_timeout_termination=False)
    assert not buffer.timeouts.any()
    assert buffer.dones.any()


def test_a_transition_takes_no_more_memory_than_in_sb3():
    for spaces in SPACES.values():
        theirs, ours = (filled(cls, spaces, 2, 3) for cls in (ReplayBuffer, TensorReplayBuffer))
        bytes_of = [sum(getattr(buffer, name).nbytes for name in FIELDS) for buffer in (theirs, ours)]
        assert bytes_of[1] <= bytes_of[0]


def test_fields_can_be_written_as_arrays():
    buffer = filled(TensorReplayBuffer, SPACES["boxes"], 2, 5)
    buffer.rewards[:5] = 3.0  # a view on the CPU
    assert (buffer.fields["rewards"][:5] == 3.0).all()
    buffer.rewards = np.full((20, 2), 4.0)
    assert (buffer.fields["rewards"] == 4.0).all()
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        TensorReplayBuffer(10, *SPACES["boxes"], optimize_memory_usage=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda buffer: pickle.loads(pickle.dumps(buffer))])
def test_fields_of_a_copy_are_its_own_experience(copied, device):
    buffer = filled(TensorReplayBuffer, SPACES["boxes"], 2, 5, device=device)
    for name, field in buffer.fields.items():
        field.fill_(FIELDS.index(name))
    twin = copied(buffer)
    assert len(pickle.dumps(buffer)) < 2 * sum(field.numel() * 4 for field in buffer.fields.values()) + 10_000
    twin.fields["rewards"][:5] += 10.0
    assert (twin.sample(8).rewards == 13.0).all()
    assert (buffer.sample(8).rewards == 3.0).all()
    assert (twin.sample(8).actions == 2.0).all()
