"""Asking a teacher about segments: feedback, its answers on disk, and its randomness."""

from prefenvs.labelling.feedback import Feedback, feedback, render, true_scores

__all__ = ["Feedback", "feedback", "render", "true_scores"]
