"""The oracle that compares reward factors one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from prefenvs.calibration import Calibration
from prefenvs.error import unknown_name
from prefenvs.segments import JudgedSegments


@dataclass(frozen=True)
class Hierarchical:
    """Prefers the segment with more of the first factor that tells the two apart by more than its margin.

    For factors z^1..z^m in order of importance: prefer a if z^i(a) > z^i(b) + d_i, b if the reverse, else go on to
    i + 1. Bukharin et al. 2023 (HERON), arXiv:2309.02632, sec. 3. Margins are in units of each factor's frozen standard
    deviation over the reference set, so labels do not change when a factor is rescaled. Margins make preferences
    intransitive.
    """

    reads: ClassVar = ("factors",)
    order: tuple[str, ...] = ()
    """Names of factors, the most important first; by default all, as the task lists them."""
    margins: tuple[float, ...] | float = 1.0
    """Margin of each factor of `order`, or one for all, in units of the factor's standard deviation."""
    undecided: Literal["skip", "tie"] = "skip"
    """What to answer if no factor decides. The paper drops the pair."""
    units: Mapping[str, float] | None = None
    """Standard deviation of each factor summed over a segment; by default those of the calibration."""

    def calibrated(self, calibration: Calibration) -> Hierarchical:
        """The same oracle with the factors' units of a calibration; asked for where `units` is None."""
        return replace(self, units=calibration.factor_sd)

    def compare(self, a: JudgedSegments, b: JudgedSegments) -> np.ndarray:
        """(n,) by how many units the deciding factor favours `a`; negative for `b`, 0 for a tie, nan for a skip.

        Raises:
            ValueError: if `order` names a factor the task lacks, `margins` has another length, a factor has no unit
                although others do, or is nan.
        """
        order = self.order or tuple(a.factors)
        margins = (self.margins,) * len(order) if isinstance(self.margins, int | float) else tuple(self.margins)
        if len(margins) != len(order):
            raise ValueError(f"margins has {len(margins)} entries, expected one for each of {order}.")
        margin = np.full(len(a), np.nan if self.undecided == "skip" else 0.0)
        open_ = np.ones(len(a), bool)
        for name, least in zip(order, margins, strict=True):
            if name not in a.factors:
                raise unknown_name("order", name, a.factors)
            difference = (a.factors[name].sum(1) - b.factors[name].sum(1)) / self._unit(name)
            if np.isnan(difference).any():
                raise ValueError(
                    f"factor {name!r} is nan in a segment of pair {np.isnan(difference).argmax()}, so the two cannot "
                    "be compared. Mend the environment's factors, or leave such segments out; nothing was asked."
                )
            decides = open_ & (np.abs(difference) > least)
            margin[decides] = difference[decides]
            open_ &= ~decides
        return margin

    def _unit(self, name: str) -> float:
        if self.units is None:
            return 1.0
        if name not in self.units:
            raise ValueError(
                f"the unit of factor {name!r} is not known; known are those of: {', '.join(self.units) or 'none'}. "
                "Pass calibration=prefenvs.calibrate(my_env, ..., factors=...), with the factors of prefenvs.wrap, or "
                "units= to the oracle; nothing was asked."
            )
        return self.units[name] or 1.0  # a factor that random play never moves keeps its own unit
