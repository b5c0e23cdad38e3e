"""One call for a whole step of Adam, with the state where `torch.optim.Adam` keeps it."""

from __future__ import annotations

import torch
from torch import Tensor

from prefenvs.agents.fused.capture import addresses


class FusedAdam:
    """Steps a `torch.optim.Adam` through torch's fused kernel, all parameters at once.

    Weights and state stay the optimiser's own, so saving, loading and going on with `optimizer.step()` work as ever.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Step `optimizer`, which `covers_adam`; begin each stretch of steps with `prepare`."""
        self.optimizer = optimizer
        self._counts = torch.zeros(0)
        self._steps: list[Tensor] = []

    def prepare(self) -> None:
        """Look the state up anew: it may have been loaded or cleared since the last step. Makes room for gradients."""
        (group,) = self.optimizer.param_groups
        self._params: list[Tensor] = group["params"]
        for param in self._params:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
            state = self.optimizer.state[param]
            if not state:
                state["step"] = torch.zeros((), device=param.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
        self._grads: list[Tensor] = [param.grad for param in self._params]
        states = [self.optimizer.state[param] for param in self._params]
        self._means, self._squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        device = self._params[0].device
        known = [id(s["step"]) for s in states] == [id(step) for step in self._steps]
        if not known or self._counts.device != device:
            # torch counts on the CPU, its fused kernel on the device. Counts are parts of a tensor, raised in one call.
            self._counts = torch.stack([s["step"] for s in states]).to(device)
            self._steps = list(self._counts.unbind())
            self._lr = self._counts.new_zeros(())
            for state, step in zip(states, self._steps, strict=True):
                state["step"] = step
        self._settings = {name: group[name] for name in ("lr", "weight_decay", "eps")}
        self._settings["beta1"], self._settings["beta2"] = group["betas"]
        self._constants = tuple(self._settings.values())[1:]
        if self._lr.is_cuda:  # where a captured step reads it anew
            self._settings["lr"] = self._lr.fill_(group["lr"])

    @property
    def key(self) -> tuple[float, ...]:
        """What a captured step holds as it was: addresses and settings, but not the learning rate."""
        held = (*self._params, *self._grads, *self._means, *self._squares, self._counts, self._lr)
        return (*addresses(held), *self._constants)

    def step(self) -> None:
        """Move the parameters by their `grad`."""
        self._counts += 1
        torch._fused_adam_(
            self._params,
            self._grads,
            self._means,
            self._squares,
            [],  # greatest squares, of amsgrad
            self._steps,
            amsgrad=False,
            maximize=False,
            **self._settings,
        )


def covers_adam(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> bool:
    """Whether `FusedAdam` steps `optimizer` as it would itself, and it holds just `params`, in that order."""
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    if "step" in vars(optimizer) or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    group = optimizer.param_groups[0]
    special = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")
    held = [id(param) for param in group["params"]]
    return not any(group.get(name) for name in special) and held == [id(param) for param in params]
