import dataclasses
import datetime
import re
from functools import partial

import numpy as np
import pytest
import torch

from prefenvs.labelling.described import changed, described, told
from prefenvs.oracles import Hierarchical, PartialReturn, Regret, TabularValues


@dataclasses.dataclass
class Weight:
    weight: object


class Opaque:
    """An object whose settings nobody can read."""

    def __init__(self, weight):
        self.weight = weight


class Named(Opaque):
    """One that says which it is."""

    def __init__(self, weight, source):
        super().__init__(weight)
        self.source = source


class Vocabulary(Opaque):
    """What every tokenizer of transformers has."""

    def get_vocab(self):
        return self.weight


def layer(weight):
    made = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(made.weight, weight)
    torch.nn.init.zeros_(made.bias)
    return made


def cell(value):
    return np.where(np.arange(2000) == 1000, value, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        cell,
        lambda v: torch.tensor([v], dtype=torch.bfloat16),
        lambda v: Weight(cell(v)),
        lambda v: Weight(Weight([cell(v)])),
        lambda v: Regret(TabularValues(cell(v), cell(0)[:, None], 0.9)),
        lambda v: Regret(TabularValues(cell(0), cell(0)[:, None], v)),
        lambda v: {(0, v): 1, "a": None},
        lambda v: {0, v},
        lambda v: np.array([[v, "a"], None], object),
        lambda v: partial(max, v),
        lambda v: Weight(v).__eq__,
        layer,
        lambda v: torch.nn.Sequential(torch.nn.ReLU() if v > 1 else torch.nn.Tanh()),
        lambda v: Named(0, str(v)),
        lambda v: Named(cell(v), "one source"),
        lambda v: Vocabulary({"a": v}),
        lambda v: {"long": [f"{i} {v}" for i in range(1000)]},
    ],
)
def test_it_tells_settings_apart_and_the_same_settings_not(make):
    one, again, other = (described(make(v), "it") for v in (1.0, 1.0, 2.0))
    assert one == again != other
    assert len(one) < 400
    assert "0x" not in one, "an address is another in every process"


def test_order_is_that_of_no_process():
    assert described({"b": 1, "a": 2}, "it") == described({"a": 2, "b": 1}, "it") == "{'a': 2, 'b': 1}"
    assert described({"b", "a", "c"}, "it") == "{'a', 'b', 'c'}"
    assert described([1, 2], "it") == described((1, 2), "it"), "JSON makes lists of tuples"
    assert described(np.float64(0.5), "it") == "0.5"


def test_functions_and_objects_without_state_are_told_by_their_names():
    assert described([len, Opaque, np.log], "it") == f"(builtins.len, {__name__}.Opaque, numpy.log)"
    assert described(object(), "it") == "object"
    assert described(PartialReturn(), "it") == "PartialReturn()"
    assert described(Hierarchical(), "it") == "Hierarchical(order=(), margins=1.0, undecided='skip', units=None)"


@pytest.mark.parametrize("held", [Opaque(1), re.compile("a"), np.random.default_rng(0), datetime.date(2020, 1, 1)])
def test_what_cannot_be_told_is_refused_by_name(held):
    with pytest.raises(TypeError, match=rf"it\['f'\]\[1\]\.weight is a {type(held).__name__}, .* leave out store="):
        described({"f": [0, Weight(held)]}, "it")
    assert described([held], "it", strict=False) == f"({type(held).__name__},)"


def test_fields_are_told_one_by_one_but_for_a_class_with_a_field_named_as_the_class_is_told():
    values = TabularValues(cell(0), cell(0)[:, None], 0.9)
    assert told(Weight((1, "a")), "it") == {"kind": "Weight", "weight": "(1, 'a')"}
    assert told(Weight([Weight(1)]), "it") == {"kind": "Weight", "weight": [{"kind": "Weight", "weight": "1"}]}
    assert set(told(Regret(values), "it")["values"]) == {"kind", "state_values", "action_values", "gamma", "source"}
    made = dataclasses.make_dataclass("Made", ["kind"])
    assert told(made("b"), "it") == described(made("b"), "it") == "Made(kind='b')"
    assert changed(told(made("b"), "it"), made("c"), "it") == "it = Made(kind='b'), now it is Made(kind='c')"
