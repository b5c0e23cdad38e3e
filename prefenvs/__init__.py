"""Preference-based reinforcement learning: tasks whose reward is hidden, teachers who answer, agents that learn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prefenvs.registration import register as register
from prefenvs.registration import register_all

if TYPE_CHECKING:
    from prefenvs.agents.evaluation import EvalCallback as EvalCallback
    from prefenvs.answers import load_answers as load_answers
    from prefenvs.answers import save_answers as save_answers
    from prefenvs.calibration import Calibration as Calibration
    from prefenvs.calibration import calibrate as calibrate
    from prefenvs.collecting import collect as collect
    from prefenvs.error import BudgetSpent as BudgetSpent
    from prefenvs.error import DamagedFile as DamagedFile
    from prefenvs.error import EvaluationOnly as EvaluationOnly
    from prefenvs.error import NoExpert as NoExpert
    from prefenvs.error import PrefenvsError as PrefenvsError
    from prefenvs.error import RunMismatch as RunMismatch
    from prefenvs.error import SegmentForgotten as SegmentForgotten
    from prefenvs.labelling import Feedback as Feedback
    from prefenvs.labelling import feedback as feedback
    from prefenvs.labelling import render as render
    from prefenvs.labelling import true_scores as true_scores
    from prefenvs.making import wrap as wrap
    from prefenvs.oracles import ORACLES as ORACLES
    from prefenvs.oracles import load_values as load_values
    from prefenvs.preference_env import EvaluationEnv as EvaluationEnv
    from prefenvs.preference_env import PreferenceEnv as PreferenceEnv
    from prefenvs.sb3 import sb3_vec as sb3_vec
    from prefenvs.segment_store import SegmentStore as SegmentStore
    from prefenvs.segments import JudgedSegments as JudgedSegments
    from prefenvs.segments import Label as Label
    from prefenvs.segments import Query as Query
    from prefenvs.segments import Segments as Segments
    from prefenvs.segments import one_hot as one_hot
    from prefenvs.tasks import TASKS as TASKS
    from prefenvs.teacher import TEACHERS as TEACHERS
    from prefenvs.teacher import Teacher as Teacher
    from prefenvs.vector_env import EvaluationVectorEnv as EvaluationVectorEnv
    from prefenvs.vector_env import PreferenceVectorEnv as PreferenceVectorEnv

__version__ = "0.1.0"

_MODULES = {
    "prefenvs.agents.evaluation": ("EvalCallback",),
    "prefenvs.answers": ("load_answers", "save_answers"),
    "prefenvs.calibration": ("Calibration", "calibrate"),
    "prefenvs.collecting": ("collect",),
    "prefenvs.error": (
        *("BudgetSpent", "DamagedFile", "EvaluationOnly", "NoExpert"),
        *("PrefenvsError", "RunMismatch", "SegmentForgotten"),
    ),
    "prefenvs.labelling": ("Feedback", "feedback", "render", "true_scores"),
    "prefenvs.making": ("wrap",),
    "prefenvs.oracles": ("ORACLES", "load_values"),
    "prefenvs.preference_env": ("EvaluationEnv", "PreferenceEnv"),
    "prefenvs.sb3": ("sb3_vec",),
    "prefenvs.segment_store": ("SegmentStore",),
    "prefenvs.segments": ("JudgedSegments", "Label", "Query", "Segments", "one_hot"),
    "prefenvs.tasks": ("TASKS",),
    "prefenvs.teacher": ("TEACHERS", "Teacher"),
    "prefenvs.vector_env": ("EvaluationVectorEnv", "PreferenceVectorEnv"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOME, "register"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'prefenvs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_all()
