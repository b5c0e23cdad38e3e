"""Studies: claims of papers, measured here. One file a study, found by its name; underscore modules are machinery.

A study has `PAPER`, `CLAIM`, `MARGIN`, `PARTS`, `TESTS` and `SEEDS`, written as literals, and `arms(scale)`, `run(arm,
seed, scale)` and `check(tables)`; also `draw(tables, figure)` and `summary(tables)`, if its page has a figure or a
table of its own. Its docstring is the page's protocol. `check` gives a verdict on any tables with the arms' names.
"""

from __future__ import annotations

import pkgutil

STUDIES: dict[str, str] = {
    module.name.replace("_", "-"): f"{__name__}.{module.name}"
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
}
"""Modules of studies by command-line name. `STUDIES["mine"] = "package.mine"` adds one."""
