"""A progress bar that counts what a learner counts, be it completions or pairs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import Progress
from stable_baselines3.common.callbacks import BaseCallback


class ProgressBar(BaseCallback):
    """Shows `num_timesteps` on its way to the total, on stderr."""

    def _on_training_start(self) -> None:
        model: Any = self.model
        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(model.unit, total=model._total_timesteps, completed=model.num_timesteps)
        self._bar.start()

    def _on_step(self) -> bool:
        self._bar.update(self._task, completed=self.model.num_timesteps)
        return True

    def _on_training_end(self) -> None:
        self._bar.stop()
