"""Positions in the data: those of the same processes and workers are taken up, others are counted, bad ones refused."""

import json
import types

import pytest

from vmoe_inform.runs import positions

ALONE = {"next_index": 64}
TWO_WORKERS = {"next_index_in_cycle": 0, "iterators_in_use_states": [{"next_index": 32}] * 2, "exhausted": [0, 0]}


def _write(checkpoint, text, name="process_0-of-1.json"):
    (checkpoint / "data").mkdir()
    (checkpoint / "data" / name).write_text(text)
    return checkpoint


def _data(position):
    return types.SimpleNamespace(get_state=lambda: position)


@pytest.mark.parametrize("position", [ALONE, TWO_WORKERS], ids=["alone", "workers"])
def test_the_same_processes_and_workers(tmp_path, position):
    assert not positions.are_of_others(_write(tmp_path, json.dumps(position)), _data(position))


@pytest.mark.parametrize(
    ("before", "after"), [(ALONE, TWO_WORKERS), (TWO_WORKERS, ALONE)], ids=["more workers", "fewer workers"]
)
def test_another_number_of_workers(tmp_path, before, after):
    assert positions.are_of_others(_write(tmp_path, json.dumps(before)), _data(after))


def test_another_number_of_processes(tmp_path):
    assert positions.are_of_others(_write(tmp_path, "{}", "process_0-of-4.json"), _data(ALONE))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"64"',
        "{}",
        '{"next_index": "64"}',
        '{"next_index": -1}',
        '{"next_index": true}',
        '{"next_index": 1.5}',
        '{"iterators_in_use_states": 3}',
        "{",
        "[" * 100_000,
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_position(tmp_path, text):
    with pytest.raises(ValueError, match=r"process_0-of-1.json: "):
        positions.are_of_others(_write(tmp_path, text), _data(ALONE))
