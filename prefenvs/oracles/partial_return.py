"""The oracle that adds up reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prefenvs.segments import JudgedSegments


@dataclass(frozen=True)
class PartialReturn:
    """Prefers the segment that collected more reward. Christiano et al. 2017, sec. 2.2.1, arXiv:1706.03741."""

    reads: ClassVar = ("rewards",)

    def utility(self, segments: JudgedSegments) -> np.ndarray:
        """(n, T) true reward of each step, in units of reward; padding counts 0. The teacher weights and sums it."""
        return segments.rewards * segments.mask
