"""Losses of alignment from pairs of responses: one signature, a formula and a source each.

Every entry of PAIR_LOSSES is called as `loss(pairs, **options)` and returns one loss a pair, in nats where the loss is
a likelihood. Log-probabilities are summed over the tokens of a response; a name that ends in `_norm` says that this
variant divides them by the number of tokens. SimPO, AlphaPO, ORPO and RRHF are defined on such means.

    >>> import torch
    >>> from prefenvs.agents.text.losses import PAIR_LOSSES, PairLogps
    >>> pairs = PairLogps(*(torch.tensor([x]) for x in (-8.0, -15.0, -10.0, -12.0)))
    >>> round(float(PAIR_LOSSES["dpo"](pairs, beta=0.1)), 4)
    0.4741

`PAIR_LOSSES["mine"] = my_loss` adds one. Learners here ask about pairs; the losses of rankings in `listwise`
(plackett_luce, lambda_loss, infonca) and of single responses in `unpaired` (kto, bco_unpaired, dro, nash_md) are for
loops of your own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from prefenvs.agents.text.losses import divergences, margins, online, ratios, reference_free, regularised
from prefenvs.agents.text.losses.pairs import PairLogps as PairLogps

PAIR_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "alpha_dpo": divergences.alpha_dpo,
    "alpha_po": reference_free.alpha_po,
    "aot": margins.aot,
    "aot_unpaired": ratios.aot_unpaired,
    "apo_down": ratios.apo_down,
    "apo_zero": ratios.apo_zero,
    "bco": ratios.bco,
    "beta_dpo": margins.beta_dpo,
    "cal_dpo": ratios.cal_dpo,
    "cdpo": margins.cdpo,
    "chi_po": divergences.chi_po,
    "cpo": reference_free.cpo,
    "cpo_norm": reference_free.cpo_norm,
    "discopop": margins.discopop,
    "dpo": margins.dpo,
    "dpo_norm": margins.dpo_norm,
    "dpop": regularised.dpop,
    "exo": margins.exo,
    "flex_dpo": ratios.flex_dpo,
    "forward_kl_dpo": divergences.forward_kl_dpo,
    "hinge": margins.hinge,
    "infonca": ratios.infonca,
    "ipo": margins.ipo,
    "ipo_norm": margins.ipo_norm,
    "iterative_rpo": regularised.iterative_rpo,
    "js_dpo": divergences.js_dpo,
    "kto_pair": ratios.kto_pair,
    "nca": ratios.nca,
    "odpo": margins.odpo,
    "orpo": reference_free.orpo,
    "r_dpo": regularised.r_dpo,
    "robust_dpo": margins.robust_dpo,
    "rpo": regularised.rpo,
    "rrhf": reference_free.rrhf,
    "selm": online.selm,
    "sft": reference_free.sft,
    "sft_norm": reference_free.sft_norm,
    "simpo": reference_free.simpo,
    "slic_hf": reference_free.slic_hf,
    "sppo": ratios.sppo,
    "tdpo1": regularised.tdpo1,
    "tdpo2": regularised.tdpo2,
    "tgdpo": regularised.tgdpo,
    "vpo": online.vpo,
    "wpo": regularised.wpo,
    "xpo": online.xpo,
}
"""Pair losses by name. `PAIR_LOSSES["mine"] = my_loss` adds one."""
