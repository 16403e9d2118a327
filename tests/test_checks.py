from typing import Annotated, Literal, NotRequired, TypedDict

import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import analysis, checks
from vmoe_inform.runs import run as runs

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        ("a", str, "a"),
        (True, bool, True),
        (None, int | None, None),
        ("sqrt_dim", float | Literal["sqrt_dim"], "sqrt_dim"),
        (2, checks.PositiveFloat | Literal["sqrt_dim"], 2.0),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([], tuple[int, ...], ()),
        (["a"], str | tuple[str, ...], ("a",)),
        (True, bool | Literal["one"], True),
        ("one", bool | Literal["one"], "one"),
        (0, checks.NonNegativeInt, 0),
        (1.0, checks.Share, 1.0),
    ],
)
def test_conform_accepts(value, hint, expected):
    result = checks.conform("field", value, hint)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (1.0, int, "int; received 1.0"),
        (True, int, "int; received True"),
        (True, float, "float; received True"),
        (NAN, float, "float; received nan"),
        (INF, checks.PositiveFloat, "float >= 1e-18 and <= 1e.18; received inf"),
        ("1", float, "float; received '1'"),
        (1, bool, "true or false; received 1"),
        (1, str, "string; received 1"),
        (None, str, "string; received None"),
        (0, checks.PositiveInt, "int >= 1 and <= 2147483647; received 0"),
        (0.0, checks.PositiveFloat, "float >= 1e-18 and <= 1e.18; received 0.0"),
        (1.0, checks.ShareBelowOne, "float >= 0 and < 1; received 1.0"),
        (-1, checks.PositiveInt | None, "int >= 1 and <= 2147483647 or None; received -1"),
        (1, Literal[True, "one"], "one of True, 'one'; received 1"),
        ("b", Literal["a", "c"], "one of 'a', 'c'; received 'b'"),
        ("ab", tuple[str, ...], "tuple of string; received 'ab'"),
        ([1, "a"], tuple[int, ...], r"tuple of int; received \[1, 'a'\]"),
        (5, Annotated[int, checks.Bound(at_least=0, below=5)], "int >= 0 and < 5; received 5"),
    ],
)
def test_conform_refuses(value, hint, message):
    with pytest.raises(ValueError, match=f"^a.b: expected {message}$"):
        checks.conform("a.b", value, hint)


@pytest.mark.parametrize("value", [1, 0.5, 1e-30, np.float32(2), np.int64(3), jnp.ones(()), np.array(2.0)])
def test_positive_accepts(value):
    checks.positive("sigma", value)


# The last three are 0, infinite and subnormal in float32.
@pytest.mark.parametrize(
    "value", [0, -1, 0.0, NAN, INF, True, None, "1", np.float32(-1), np.int64(0), 1e-50, 1e40, 1e-40]
)
def test_positive_refuses(value):
    with pytest.raises(ValueError, match=r"^sigma: expected a number > 0 \(in float32\); received "):
        checks.positive("sigma", value)


@pytest.mark.parametrize(
    ("received", "expected"), [((3, 4), (3, 4)), ((3, 4), (3, "E")), ((2, 3, 4), ("...", 3, "E")), ((4,), ("...", 4))]
)
def test_shape_accepts(received, expected):
    checks.shape("kernel", received, expected)


@pytest.mark.parametrize(
    ("received", "expected", "message"),
    [
        ((3, 4), (3, 5), r"\[3, 5\]; received \[3, 4\]"),
        ((1, 3, 4), (3, 4), r"\[3, 4\]; received \[1, 3, 4\]"),
        ((3,), (3, "E"), r"\[3, E\]; received \[3\]"),
        ((4,), ("...", 3, 4), r"\[..., 3, 4\]; received \[4\]"),
        ((2, 5, 4), ("...", 3, 4), r"\[..., 3, 4\]; received \[2, 5, 4\]"),
    ],
)
def test_shape_refuses(received, expected, message):
    with pytest.raises(ValueError, match=f"^kernel: expected shape {message}$"):
        checks.shape("kernel", received, expected)


class _Row(TypedDict):
    name: str
    share: NotRequired[checks.Share]
    sizes: list[int]


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ({"name": "a", "sizes": [1], "more": None}, _Row, None),
        ({"sizes": []}, _Row, "no 'name'"),
        ({"name": "a", "sizes": [1, 2.5]}, _Row, "sizes[1]: 2.5 in place of int"),
        ({"x": {"name": "a", "sizes": [], "share": 2}}, dict[str, _Row], "x.share: 2 in place of float >= 0 and <= 1"),
        ([], dict[str, int], "[] in place of an object"),
        (3, str | list[str], "3 in place of string"),
        ([3], str | list[str], "[0]: 3 in place of string"),
        ("a" * 100, list[int], "'" + "a" * 59 + "… in place of a list"),
    ],
)
def test_misfit(value, hint, words):
    found = checks.misfit(value, hint)
    assert found == words or (hint == str | list[str] and found is not None and found.startswith("3 in place of"))


def test_paths_that_python_gives_are_read_as_those_of_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checks.local_path("workdir", "~/run") == checks.local_path("workdir", tmp_path / "run") == tmp_path / "run"
    for read in (runs.load, analysis.load, analysis.load_inputs):
        with pytest.raises(FileNotFoundError, match=f"received '{tmp_path}/run'"):
            read("~/run")
        with pytest.raises(ValueError, match=r"workdir: expected path on this machine, or gs://.*; received"):
            read("s3://bucket/run")
