"""Fields with several values each, as a command line gives them."""

import pytest

from vmoe_inform.config import sweeps

INFORM = "model.router.inform"
TEMPERATURE = "model.router.options.similarity.temperature"


def test_values_have_the_types_of_their_fields():
    found = sweeps.parse({INFORM: "similarity"}, [f"{TEMPERATURE}=0.1,1,sqrt_dim"])
    assert found == {INFORM: ("similarity",), TEMPERATURE: (0.1, 1.0, "sqrt_dim")}
    assert list(map(type, found[TEMPERATURE])) == [float, float, str]


def test_commas_in_brackets_and_quotes_separate_nothing():
    orders = sweeps.parse({}, [f"{INFORM}=('attention','similarity'), none,('similarity',)"])
    assert orders == {INFORM: (("attention", "similarity"), "none", ("similarity",))}
    # Without --sweep a comma list is one value, as it is for training.
    assert sweeps.parse({INFORM: "attention,similarity"}, []) == {INFORM: (("attention", "similarity"),)}


def test_every_combination_is_tried_and_the_last_field_varies_fastest():
    swept = {"a": (1, 2), "b": ("x",), "c": (True, False)}
    assert sweeps.combinations(swept) == [
        {"a": 1, "b": "x", "c": True},
        {"a": 1, "b": "x", "c": False},
        {"a": 2, "b": "x", "c": True},
        {"a": 2, "b": "x", "c": False},
    ]
    assert sweeps.combinations({}) == []


@pytest.mark.parametrize(
    ("fixed", "swept", "message"),
    [
        ({}, ["model.router.inform"], "--sweep: expected --sweep=FIELD=VALUE,VALUE; received 'model.router.inform'"),
        ({}, ["=1,2"], "--sweep: expected --sweep=FIELD=VALUE,VALUE; received '=1,2'"),
        ({}, [f"{TEMPERATURE}=1,,2"], "temperature: expected a comma list of values without empty items"),
        ({}, [f"{TEMPERATURE}="], "temperature: expected a comma list of values without empty items"),
        ({}, [f"{INFORM}=('attention',"], "inform: expected a comma list of values"),
        ({}, [f"{TEMPERATURE}=1,warm"], "temperature: expected .*sqrt_dim.*; received 'warm'"),
        ({}, [f"{TEMPERATURE}=1,1.0"], "temperature: expected each value once"),
        ({TEMPERATURE: "1"}, [f"{TEMPERATURE}=2,3"], "temperature: expected each field once among"),
        ({}, [f"{TEMPERATURE}=1", f"{TEMPERATURE}=1"], "temperature: expected each field once among"),
        (
            {"model.router": "x"},
            [],
            r"model.router: expected a field of this group, as --config.model.router.NAME=VALUE",
        ),
        ({}, ["model.router=x,y"], r"a field of this group, as --sweep=model.router.NAME=VALUE,VALUE; received"),
        ({}, ["model.router.infrom=a"], "model.router: expected one of the keys .*did you mean 'inform'"),
    ],
)
def test_bad_input_is_one_line(fixed, swept, message):
    with pytest.raises(ValueError, match=message):
        sweeps.parse(fixed, swept)


def test_a_long_value_without_an_end_is_refused_at_once():
    """Where a pattern tries all ways to cut it up, this would take years."""
    with pytest.raises(ValueError, match="comma list"):
        sweeps.parse({}, [f"{INFORM}=" + "a" * 5000 + "("])
