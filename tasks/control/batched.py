"""Many MuJoCo simulations that step together: physics in threads, everything else over arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import mujoco
import numpy as np

from prefenvs.tasks.control.mujoco import DYNAMICS, MujocoTask
from prefenvs.tasks.control.robots import ROBOTS, Fields
from prefenvs.tasks.task import BatchedStep, Rows, State, generator_to_array


def usable_cores() -> int:
    """Cores this process may use; all of the machine's on systems that bind no process to cores, such as macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BatchedMujoco:
    """N simulations of one of Gymnasium's MuJoCo tasks, with the numbers of N `MujocoTask`s.

    MuJoCo lets go of Python's lock while it steps, so threads share the simulations among them. Contact forces are
    worked out only for the robots that read them. `mujoco.rollout` is no alternative: it returns positions and
    velocities, where Ant and Humanoid observe forces and inertias too, and is hardly faster.

    Example:
        >>> import numpy as np
        >>> terms = {"forward_reward": "reward_forward", "control_cost": "reward_ctrl"}
        >>> batch = BatchedMujoco(MujocoTask("HalfCheetah-v5", terms), num_envs=3)
        >>> rows = np.arange(3)
        >>> batch.reset(rows, [np.random.default_rng(row) for row in rows])
        >>> batch.step(np.zeros((3, 6), np.float32), rows).rewards.shape
        (3,)
        >>> batch.close()
    """

    def __init__(self, task: MujocoTask, num_envs: int, threads: int | None = None) -> None:
        """Make the simulations.

        Args:
            task: the single task; its model is shared by all simulations.
            num_envs: N.
            threads: that step them; by default one for each core this process may use.
        """
        self.task, self.num_envs = task, num_envs
        env = task._env
        self._model, self._substeps, self._seconds = env.model, env.frame_skip, env.dt
        self._pose = env.init_qpos.copy(), env.init_qvel.copy()
        self._robot = ROBOTS[env.spec.id]
        self._simulations = [mujoco.MjData(self._model) for _ in range(num_envs)]
        self._views = {name: [getattr(data, name) for data in self._simulations] for name in ("qpos", "qvel", "ctrl")}
        self._flat = {name: [getattr(d, name).reshape(-1) for d in self._simulations] for name in self._robot.fields}
        self._fields: Fields = {
            name: np.stack([getattr(d, name) for d in self._simulations]) for name in self._robot.fields
        }
        self._fields |= {"body_mass": self._model.body_mass.copy(), "velocity": np.zeros(num_envs)}
        self._before = np.zeros((num_envs, mujoco.mj_stateSize(self._model, DYNAMICS)))
        self._stepped = np.zeros(num_envs, bool)
        self._factors = np.zeros((num_envs, len(task._terms)))
        self._generators: list[Any] = [None] * num_envs
        threads = min(threads or usable_cores(), num_envs)
        self._helpers = threads - 1  # the calling thread works too
        self._pool = ThreadPoolExecutor(self._helpers) if self._helpers else None

    def reset(
        self, rows: Rows, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin episodes of these rows as Gymnasium does, each drawn from its own generator."""
        starts = {}
        for row, generator in zip(rows.tolist(), generators, strict=True):
            self._generators[row] = generator
            starts[row] = self._robot.start(generator, *self._pose)
        self._share(partial(self._restart, starts=starts), rows)
        self._stepped[rows] = False
        self._read(rows)

    def remember(self, rows: Rows) -> None:
        """Keep the dynamics of these rows from before the next step."""
        for row in rows.tolist():
            mujoco.mj_getState(self._model, self._simulations[row], self._before[row], DYNAMICS)

    def step(self, actions: np.ndarray, rows: Rows) -> BatchedStep:
        """Act in these rows."""
        robot, fields = self._robot, self._fields
        before = robot.position(fields).copy() if robot.position else None
        self._share(partial(self._advance, actions=actions), rows)
        self._stepped[rows] = True
        self._read(rows)
        if robot.position:
            fields["velocity"] = (robot.position(fields) - before) / self._seconds
        stands = robot.stands(fields) if robot.stands else np.ones(self.num_envs, bool)
        paid = robot.pay(fields, actions, stands)
        factors = np.stack(paid.factors, 1, dtype=np.float64)
        self._factors[rows] = factors[rows]
        return BatchedStep(paid.reward, factors, ~stands)

    def observe(self) -> np.ndarray:
        """(N, obs_dim) float64 present observations."""
        return self._robot.observe(self._fields)

    def get_state(self, row: int) -> State:
        """What `MujocoTask.set_state` takes."""
        stepped = bool(self._stepped[row])
        if not stepped:
            self.remember(np.array([row]))
        return {
            "dynamics": self._before[row].copy(),
            "controls": self._views["ctrl"][row].copy() if stepped else np.empty(0),
            "factors": self._factors[row].copy() if stepped else np.empty(0),
            "generator": generator_to_array(self._generators[row]),
        }

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self.task.close()

    def _share(self, work: Callable[[Iterator[int]], None], rows: Rows) -> None:
        """Do `work` on all rows. The threads take them from one iterator, so a slow simulation holds up no other."""
        pending = iter(rows.tolist())
        helpers = [self._pool.submit(work, pending) for _ in range(min(self._helpers, len(rows) - 1))]  # type: ignore[union-attr]
        work(pending)
        for helper in helpers:
            helper.result()

    def _restart(self, rows: Iterator[int], starts: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        model, simulations = self._model, self._simulations
        for row in rows:
            mujoco.mj_resetData(model, simulations[row])
            self._views["qpos"][row][:], self._views["qvel"][row][:] = starts[row]
            mujoco.mj_forward(model, simulations[row])

    def _advance(self, rows: Iterator[int], actions: np.ndarray) -> None:
        model, simulations, controls, substeps = self._model, self._simulations, self._views["ctrl"], self._substeps
        contact_forces = self._robot.contact_forces
        for row in rows:
            controls[row][:] = actions[row]
            mujoco.mj_step(model, simulations[row], substeps)
            if contact_forces:
                mujoco.mj_rnePostConstraint(model, simulations[row])

    def _read(self, rows: Rows) -> None:
        """Bring the fields of these rows up to date."""
        everything = len(rows) == self.num_envs
        for name, views in self._flat.items():
            field = self._fields[name]
            if everything:
                np.concatenate(views, out=field.reshape(-1))
            elif len(rows):
                field[rows] = np.concatenate([views[row] for row in rows.tolist()]).reshape(-1, *field.shape[1:])
