"""Learners on disk: JSON and safetensors, nothing that could run code, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.her import HerReplayBuffer

from prefenvs.agents.replay import FIELDS, TensorReplayBuffer
from prefenvs.error import DamagedFile, RunMismatch
from prefenvs.labelling import Feedback

Arrays = dict[str, np.ndarray]

_COUNTERS = ("num_timesteps", "_episode_num", "_n_updates", "_total_timesteps", "_n_calls", "exploration_rate")
"""What SB3's algorithms count; the last two are DQN's."""


def under(prefix: str, state: Arrays) -> Arrays:
    """The entries of `state` below `prefix/`, with the prefix taken off."""
    return {name.removeprefix(f"{prefix}/"): a for name, a in state.items() if name.startswith(f"{prefix}/")}


def module_state(module: torch.nn.Module) -> Arrays:
    """Weights and buffers as arrays; those of bfloat16, which numpy lacks, as float32, and so without loss."""
    return {name: _array(tensor) for name, tensor in module.state_dict().items()}


def load_module(module: torch.nn.Module, state: Arrays) -> None:
    """Put weights and buffers back.

    Raises:
        RunMismatch: if they belong to another architecture.
    """
    try:
        module.load_state_dict({name: torch.as_tensor(np.array(array)) for name, array in state.items()})
    except RuntimeError as error:
        raise RunMismatch(f"the saved weights do not fit this network: {error}") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> Arrays:
    """State of each parameter by its place."""
    saved = optimizer.state_dict()["state"]
    return {
        f"{place}/{name}": _array(torch.as_tensor(value))
        for place, values in saved.items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, state: Arrays) -> None:
    """Put back what `optimizer_state` gave; learning rates stay as they are."""
    places: dict[int, dict[str, torch.Tensor]] = {}
    for key, array in state.items():
        place, _, name = key.partition("/")
        places.setdefault(int(place), {})[name] = torch.as_tensor(np.array(array))
    optimizer.load_state_dict({"state": places, "param_groups": optimizer.state_dict()["param_groups"]})


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    holders: dict[str, Any] = {"policy": model.policy, "actor": model.policy, "critic": model.policy}
    found = {
        "policy": getattr(holders["policy"], "optimizer", None),
        "actor": getattr(getattr(model.policy, "actor", None), "optimizer", None),
        "critic": getattr(getattr(model.policy, "critic", None), "optimizer", None),
        "ent_coef": getattr(model, "ent_coef_optimizer", None),
    }
    return {name: optimizer for name, optimizer in found.items() if optimizer is not None}


def learner_state(model: BaseAlgorithm) -> Arrays:
    """Weights and optimisers of an SB3 algorithm, without its experience."""
    state = {f"policy/{name}": array for name, array in module_state(model.policy).items()}
    for owner, optimizer in _optimizers(model).items():
        state |= {f"optimizer/{owner}/{name}": array for name, array in optimizer_state(optimizer).items()}
    log_ent_coef = getattr(model, "log_ent_coef", None)
    if log_ent_coef is not None:
        state["log_ent_coef"] = log_ent_coef.detach().cpu().numpy().copy()
    return state


def load_learner(model: BaseAlgorithm, state: Arrays) -> None:
    """Put back what `learner_state` gave."""
    load_module(model.policy, under("policy", state))
    for owner, optimizer in _optimizers(model).items():
        load_optimizer(optimizer, under(f"optimizer/{owner}", state))
    if "log_ent_coef" in state:
        with torch.no_grad():
            model.log_ent_coef.copy_(torch.as_tensor(state["log_ent_coef"]))  # type: ignore[attr-defined]


def experience_state(model: BaseAlgorithm) -> Arrays:
    """Counters, replay buffer and VecNormalize's statistics."""
    state = {f"counter/{name}": np.array(getattr(model, name)) for name in _COUNTERS if hasattr(model, name)}
    for name, moments in _normalizer(model).items():
        state |= {f"normalizer/{name}/{part}": np.array(getattr(moments, part)) for part in _MOMENTS}
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        size = buffer.size()
        state |= {f"replay/{name}": array[:size] for name, array in _replay_fields(buffer).items()}
        state |= {"replay/pos": np.array(buffer.pos), "replay/full": np.array(buffer.full)}
        state |= {"replay/explore": np.array(getattr(buffer, "explore", False))}
        state |= {"replay/novelty": np.array(getattr(buffer, "novelty", np.zeros(3)))}
    return state


def load_experience(model: BaseAlgorithm, state: Arrays) -> None:
    """Put back what `experience_state` gave."""
    for name, value in under("counter", state).items():
        setattr(model, name, value.item())
    for name, moments in _normalizer(model).items():
        for part in _MOMENTS:
            setattr(moments, part, state[f"normalizer/{name}/{part}"])
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        for name, array in _replay_fields(buffer).items():
            saved = state[f"replay/{name}"]
            if isinstance(buffer, TensorReplayBuffer):
                buffer.fields[name][: len(saved)] = torch.as_tensor(saved, device=buffer.device)
            else:
                array[: len(saved)] = saved
        buffer.pos, buffer.full = int(state["replay/pos"]), bool(state["replay/full"])
        buffer.explore, buffer.novelty = bool(state["replay/explore"]), state["replay/novelty"]


def _replay_fields(buffer: Any) -> Arrays:
    """(rows, E, ...) arrays of a replay buffer by name, those of a Dict space by name and key."""
    fields: Arrays = {}
    for name in FIELDS:
        held = getattr(buffer, name, None)  # with optimize_memory_usage there are no next_observations
        if isinstance(held, dict):
            fields |= {f"{name}/{key}": array for key, array in held.items()}
        elif held is not None:
            fields[name] = held
    return fields


_MOMENTS = ("mean", "var", "count")
"""What a RunningMeanStd holds."""


def _normalizer(model: BaseAlgorithm) -> dict[str, RunningMeanStd]:
    """The running statistics of a model's VecNormalize by name; none without one."""
    env = model.get_vec_normalize_env()
    if env is None:
        return {}
    seen = env.obs_rms if env.norm_obs else {}
    seen = seen if isinstance(seen, dict) else {"": seen}
    return {"returns": env.ret_rms} | {f"observations/{key}": moments for key, moments in seen.items()}


def restart(model: BaseAlgorithm, seed: int, barrier: int) -> None:
    """Reset all environments and start every generator anew from (seed, barrier)."""
    word = restart_generators(model, seed, barrier)
    env, normalizer, noise = model.get_env(), model.get_vec_normalize_env(), getattr(model, "action_noise", None)
    assert env is not None
    env.seed(word >> 1)
    model._last_obs = env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()
    if noise is not None:
        noise.reset()


def restart_generators(model: BaseAlgorithm, seed: int, barrier: int) -> int:
    """Start the generators of this process and of the action space anew; returns a number for the environments'."""
    words = [int(word) for word in np.random.SeedSequence([seed, barrier]).generate_state(4)]
    random.seed(words[0])
    np.random.seed(words[0])
    torch.manual_seed(words[1])
    model.action_space.seed(words[2])
    return words[3]


def restart_exploration(model: BaseAlgorithm, seed: int, barrier: int) -> None:
    """Draw gSDE's noise anew: SB3 draws it before it says that a rollout starts, so before a barrier."""
    restart_generators(model, seed, barrier)
    if model.use_sde:
        env = model.get_env()
        assert env is not None
        noisy: Any = getattr(model, "actor", model.policy)
        noisy.reset_noise(env.num_envs)


def write_folder(folder: Path, files: dict[str, Arrays], facts: dict[str, Any]) -> None:
    """Write arrays and facts to a new folder, whole or not at all: temporary name, fsync, rename."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    digests = {}
    for name, arrays in files.items():
        path = part / f"{name}.safetensors"
        save_file({key: np.asarray(array, order="C") for key, array in arrays.items()}, path)  # numbers stay 0-d
        digests[path.name] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        _sync(path)
    (part / "facts.json").write_text(json.dumps({**facts, "digests": digests}, indent=1), encoding="utf-8")
    _sync(part / "facts.json")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    _sync(folder.parent)


def read_folder(folder: Path) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What `write_folder` was given.

    Raises:
        DamagedFile: if a file is missing or changed; all were left as they are.
    """
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        files = {}
        for name, digest in facts["digests"].items():
            path = folder / name
            if hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() != digest:
                raise DamagedFile(f"{path} is not what was written. It was left as it is; remove {folder} to go on.")
            files[path.stem] = load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DamagedFile(
            f"checkpoint {folder} cannot be read ({error}). It was left as it is; remove it to use an earlier one."
        ) from error
    return files, facts


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Barrier(BaseCallback):
    """Checkpoints an SB3 algorithm at fixed step numbers, so that a killed run can be repeated from there bit for bit.

    At each barrier all episodes are cut, the state is written, every generator starts anew from (seed, barrier) and the
    environments are reset: an unbroken run does just what a resumed one does. The two latest checkpoints are kept. The
    teacher's side (recorded true rewards) goes to a file of its own, which no learner reads.

    Kept are networks, optimisers, counters, replay buffer and VecNormalize's statistics. What an environment's wrapper
    carries beyond a reset, as NormalizeObservation does, is not.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from prefenvs.agents import PPO, Barrier
        >>> model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu")
        >>> barrier = Barrier(Path(tempfile.mkdtemp()), every=128, seed=0)
        >>> barrier.begin(model)  # goes on from the latest checkpoint, where there is one
        False
        >>> model.learn(256 - model.num_timesteps, callback=barrier, reset_num_timesteps=False).num_timesteps
        256
    """

    def __init__(
        self, folder: Path, every: int, seed: int, feedback: Feedback | None = None, parts: tuple[Any, ...] = ()
    ) -> None:
        """Checkpoint every so many environment steps.

        Args:
            folder: gets a subfolder a checkpoint.
            every: steps between barriers.
            seed: of the run.
            feedback: of the training environment, if it has one.
            parts: callbacks with `state`, `load_state`, `reseed` and `cut`, such as PreferenceCallback.
        """
        super().__init__()
        self.folder, self.every, self.seed, self.feedback, self.parts = folder, every, seed, feedback, parts
        self.barrier = 0
        self._restarted = False

    def _on_training_start(self) -> None:
        if self.model.num_timesteps < self.barrier * self.every:
            raise ValueError(
                f"training begins at step {self.model.num_timesteps}, and the checkpoint is of step "
                f"{self.barrier * self.every} or later. Call learn(total - model.num_timesteps, callback=barrier, "
                "reset_num_timesteps=False). Nothing was trained."
            )

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= (self.barrier + 1) * self.every:
            self.barrier = self.num_timesteps // self.every
            self.write()
            self._restart()
        if self._restarted:
            self._restarted = False
            restart_exploration(self.model, self.seed, self.barrier)

    def _on_step(self) -> bool:
        return True

    def write(self) -> None:
        """Write a checkpoint of the present state."""
        for part in self.parts:
            part.cut()
        learner = learner_state(self.model) | experience_state(self.model)
        for index, part in enumerate(self.parts):
            learner |= {f"part/{index}/{name}": array for name, array in part.state().items()}
        files = {"learner": learner}
        if self.feedback is not None:
            files["teacher"] = self.feedback.state()
        write_folder(self.folder / f"{self.barrier:06d}", files, {"barrier": self.barrier, "seed": self.seed})
        for old in self.checkpoints()[:-2]:
            shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.suffix != ".part")

    def _restart(self) -> None:
        for part in self.parts:
            part.reseed(self.barrier)
        restart(self.model, self.seed, self.barrier)
        self._restarted = True

    def begin(self, model: BaseAlgorithm) -> bool:
        """Bring a newly made model to the latest checkpoint, or to the run's beginning; returns whether it resumed.

        Raises:
            DamagedFile: if the latest checkpoint cannot be read.
            RunMismatch: if it belongs to a run with another seed.
            ValueError: if the model has a HerReplayBuffer.
        """
        if isinstance(getattr(model, "replay_buffer", None), HerReplayBuffer):
            raise ValueError(
                "a HerReplayBuffer also holds where its episodes begin and end, which Barrier does not keep. Use "
                "another replay_buffer_class, or learn without Barrier. Nothing was read or written."
            )
        self.model = model
        found = self.checkpoints()
        if found:
            files, facts = read_folder(found[-1])
            if facts["seed"] != self.seed:
                raise RunMismatch(f"{found[-1]} belongs to seed {facts['seed']}, this run has seed {self.seed}.")
            self.barrier = int(facts["barrier"])
            load_learner(model, files["learner"])
            load_experience(model, files["learner"])
            for index, part in enumerate(self.parts):
                part.load_state(under(f"part/{index}", files["learner"]))
            if self.feedback is not None:
                self.feedback.load_state(files["teacher"])
        self._restart()
        return bool(found)
