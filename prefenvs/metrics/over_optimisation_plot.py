"""Gold against proxy along the distance from the reference, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from prefenvs.metrics.over_optimisation import FrontierFit, OptimisationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_over_optimisation(
    curves: Mapping[str, OptimisationCurve], *, axes: Axes | None = None, fits: Mapping[str, FrontierFit] | None = None
) -> Axes:
    """Draw gold (solid, its peak marked) and proxy (dashed) rewards of runs against sqrt(KL), and fits (dotted).

    A negative estimate of the KL is drawn at 0.

    Args:
        curves: Runs by the name that the legend gives them.
        axes: Where to draw; None for a new figure, which `axes.figure` saves.
        fits: Fits of some of the curves, by the same names, to gold less its value at the least KL.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.
    """
    if axes is None:
        axes = _new_axes()
    for number, (name, curve) in enumerate(curves.items()):
        order, colour = np.argsort(curve.kl, kind="stable"), f"C{number}"
        distance, gold = np.sqrt(np.maximum(curve.kl[order], 0.0)), curve.gold[order]
        axes.plot(distance, gold, color=colour, label=name)
        axes.plot(distance[gold.argmax()], gold.max(), "o", color=colour, markersize=5)
        if curve.error is not None:
            error = curve.error[order]
            axes.fill_between(distance, gold - error, gold + error, color=colour, alpha=0.2, linewidth=0)
        if curve.proxy is not None:
            axes.plot(distance, curve.proxy[order], "--", color=colour, linewidth=1)
        if fits and name in fits:
            along = np.linspace(0.0, distance[-1], 100)
            axes.plot(along, gold[0] + fits[name].gold(along), ":", color=colour, linewidth=1)
    axes.set_xlabel("distance from the reference, sqrt(KL) in sqrt(nats)")
    axes.set_ylabel("reward: gold solid, proxy dashed")
    axes.legend(frameon=False)
    return axes


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_over_optimisation needs matplotlib: pip install 'prefenvs[bench]'.") from error
    return Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()
