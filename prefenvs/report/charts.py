"""Line charts as inline SVG text: themed by the page's CSS, readable without it, each with a text alternative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 12, 46


@dataclass(frozen=True)
class Series:
    """A curve, and a band around it where `low` and `high` are given. Points that are nan are left out."""

    label: str
    x: np.ndarray
    """(P,) increasing."""
    y: np.ndarray
    """(P,)."""
    low: np.ndarray | None = None
    """(P,) lower edge of the band."""
    high: np.ndarray | None = None
    """(P,) upper edge of the band."""


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    label: str
    y: float


def line_chart(
    series: Sequence[Series],
    levels: Sequence[Level] = (),
    *,
    name: str,
    description: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    y_text: Callable[[float], str] | None = None,
) -> str:
    """A chart and its legend.

    Args:
        series: curves, the i-th drawn in the i-th colour and dash of the page's style sheet.
        levels: horizontal lines.
        name: unique on the page; the text alternative hangs on it.
        description: the text alternative.
        x_label: quantity and unit.
        y_label: quantity and unit.
        x_range: ends of the horizontal axis; by default what the data need.
        y_range: ends of the vertical axis; by default what the data need.
        y_text: how a value of the vertical axis is written.
    """
    write = y_text or number
    x_low, x_high = x_range or _range([s.x for s in series], pad=0.0)
    edges = [edge for s in series for edge in (s.y, s.low, s.high) if edge is not None]
    y_low, y_high = y_range or _range([*edges, np.array([level.y for level in levels])], pad=0.05)

    def px(x: float) -> str:
        return f"{LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT):.1f}"

    def py(y: float) -> str:
        return f"{HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="11.5" aria-labelledby="{name}-text">',
        f'<title id="{name}-text">{escape(description)}</title>',
    ]
    for tick in ticks(y_low, y_high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(tick)}" y2="{py(tick)}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py(tick)}" dy="0.35em" text-anchor="end">{escape(write(tick))}</text>')
    parts += [
        f'<text x="{px(tick)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{compact(tick)}</text>'
        for tick in ticks(x_low, x_high, 5)
    ]
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="translate(12 {middle_y}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{escape(y_label)}</text>')
    for i, s in enumerate(series):
        parts += [_band(s, i, px, py), *_curve(s, i, px, py)]
    across = f'stroke="currentColor" x1="{LEFT}" x2="{WIDTH - RIGHT}"'
    parts += [
        f'<line class="level l{i % 3}" {across} y1="{py(level.y)}" y2="{py(level.y)}"/>'
        for i, level in enumerate(levels)
        if y_low <= level.y <= y_high
    ]
    return "".join([*parts, "</svg>", _legend(series, levels, write)])


def _band(s: Series, i: int, px: Callable[[float], str], py: Callable[[float], str]) -> str:
    if s.low is None or s.high is None:
        return ""
    kept = np.isfinite(s.low) & np.isfinite(s.high)
    there = [f"{px(x)},{py(y)}" for x, y in zip(s.x[kept], s.low[kept], strict=True)]
    back = [f"{px(x)},{py(y)}" for x, y in zip(s.x[kept], s.high[kept], strict=True)][::-1]
    return f'<polygon class="band s{i % 6}" fill-opacity="0.2" points="{" ".join(there + back)}"/>'


def _curve(s: Series, i: int, px: Callable[[float], str], py: Callable[[float], str]) -> list[str]:
    kept = np.isfinite(s.y)
    points = [(px(x), py(y)) for x, y in zip(s.x[kept], s.y[kept], strict=True)]
    path = " ".join(f"{x},{y}" for x, y in points)
    line = f'<polyline class="curve s{i % 6}" fill="none" stroke="currentColor" points="{path}"/>'
    dots = points if len(points) <= 30 else []
    return [line, *(f'<circle class="dot s{i % 6}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in dots)]


def _legend(series: Sequence[Series], levels: Sequence[Level], write: Callable[[float], str]) -> str:
    entries = [(f"curve s{i % 6}", s.label) for i, s in enumerate(series)]
    entries += [(f"level l{i % 3}", f"{level.label}: {write(level.y)}") for i, level in enumerate(levels)]
    swatch = '<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true"><line class="{}" x2="30" y1="5" y2="5"/></svg>'
    rows = "".join(f"<li>{swatch.format(style)} {escape(label)}</li>" for style, label in entries)
    return f'<ul class="legend">{rows}</ul>'


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between `low` and `high`, about so many: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A value with as many digits as a reader needs: thousands separated, fewer decimals for larger ones."""
    if not np.isfinite(value):
        return "not recorded"
    size = abs(value)
    text = (
        f"{value:,.0f}" if size >= 100 or value == round(value) else f"{value:,.1f}" if size >= 10 else f"{value:.3g}"
    )
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text


def percent(value: float) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{value:.0%}" if np.isfinite(value) else "not recorded"


def compact(value: float) -> str:
    """A number of steps for a small axis: 20k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _range(arrays: Sequence[np.ndarray], pad: float) -> tuple[float, float]:
    values = np.concatenate([np.asarray(a, float) for a in arrays])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:
        margin = max(abs(low) * 0.1, 1.0)
        return low - margin, high + margin
    return low - pad * (high - low), high + pad * (high - low)
