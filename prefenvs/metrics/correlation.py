"""Correlations over the last axis of arrays."""

from __future__ import annotations

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of x and y over their last axis.

    Args:
        x: (..., n) numbers.
        y: (..., n) numbers.

    Returns:
        (...) in [-1, 1]; nan where x or y is constant up to rounding.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    spread = np.ones(())
    product = np.ones(())
    for values in (x, y):
        centred = values - values.mean(axis=-1, keepdims=True)
        size = np.sqrt((centred**2).mean(axis=-1))
        constant = size <= 1e-12 * np.abs(values).max(axis=-1, initial=0.0)
        spread = spread * np.where(constant, np.nan, size)
        product = product * centred
    return np.clip(product.mean(axis=-1) / spread, -1.0, 1.0)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of x and y over their last axis: Pearson's of their ranks, ties sharing the mean.

    Args:
        x: (..., n) numbers.
        y: (..., n) numbers.

    Returns:
        (...) in [-1, 1]; nan where x or y is constant.
    """
    return pearson(ranks(x), ranks(y))


def ranks(x: np.ndarray) -> np.ndarray:
    """(..., n) ranks from 1 of (..., n) numbers over the last axis; equal numbers share their mean rank."""
    x = np.asarray(x, float)
    order = np.sort(x, axis=-1)
    rows, sorted_rows = x.reshape(-1, x.shape[-1]), order.reshape(-1, x.shape[-1])
    ends = [
        np.searchsorted(held, row, side="left") + np.searchsorted(held, row, side="right") + 1
        for row, held in zip(rows, sorted_rows, strict=True)
    ]
    return np.array(ends, float).reshape(x.shape) / 2
