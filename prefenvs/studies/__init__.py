"""Studies: claims of papers, measured here. One file a study, found by its name; underscore modules are machinery.

A study has `PAPER`, `CLAIM`, `MARGIN`, `PARTS`, `TESTS` and `SEEDS`, written as literals, and `arms(scale)`, `run(arm,
seed, scale)` and `check(tables)`; also `draw(tables, figure)` and `summary(tables)`, if its page has a figure or a
table of its own. Its docstring is the page's protocol. `check` gives a verdict on any tables with the arms' names. What
a study is written with is imported from here.
"""

from __future__ import annotations

import pkgutil

from prefenvs.studies._check import Paper as Paper
from prefenvs.studies._check import Table as Table
from prefenvs.studies._check import Tables as Tables
from prefenvs.studies._check import Verdict as Verdict
from prefenvs.studies._check import decide as decide
from prefenvs.studies._check import lead as lead
from prefenvs.studies._check import over_seeds as over_seeds
from prefenvs.studies._check import within as within
from prefenvs.studies._tables import at_end as at_end
from prefenvs.studies._tables import curves as curves
from prefenvs.studies._tables import dots as dots
from prefenvs.studies._tables import means as means
from prefenvs.studies._tables import per_seed as per_seed
from prefenvs.studies._tables import runs as runs

STUDIES: dict[str, str] = {
    module.name.replace("_", "-"): f"{__name__}.{module.name}"
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
}
"""Modules of studies by command-line name. `STUDIES["mine"] = "package.mine"` adds one."""
