"""Dataclasses as JSON documents."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping

import pytest

from vmoe_inform import checks, documents, storage


@dataclasses.dataclass(frozen=True)
class Layer:
    load: tuple[checks.Share, ...]
    kind: str = dataclasses.field(metadata={"key": "class"})
    remark: str | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
    layers: Mapping[str, Layer]
    pair: tuple[int, float]
    other: Layer | None
    version: int = 2


WHOLE = Whole({"block_1": Layer((0.25, 0.75), "a")}, (1, 2.0), None)


def test_a_document_is_read_as_it_was_written():
    written = json.loads(json.dumps(documents.to_json(WHOLE)))
    assert written == {
        "layers": {"block_1": {"load": [0.25, 0.75], "class": "a", "remark": None}},
        "pair": [1, 2.0],
        "other": None,
        "version": 2,
    }
    assert documents.from_json(written, Whole) == WHOLE
    del written["layers"]["block_1"]["remark"]  # has a default
    written["newer"] = 3
    assert documents.from_json(written, Whole) == WHOLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.pop("pair"), "no 'pair'"),
        (lambda found: found.update(layers=[]), "layers: [] in place of an object"),
        (lambda found: found.update(pair=[1]), "pair: [1] in place of (int, float)"),
        (lambda found: found["layers"]["block_1"].pop("class"), "layers.block_1: no 'class'"),
        (lambda found: found["layers"]["block_1"].update(load=0.5), "layers.block_1.load: 0.5 in place of a list"),
        (lambda found: found["layers"]["block_1"].update(load=[0.5, 2]), "layers.block_1.load[1]: 2 in place of float"),
        (lambda found: found.update(other={"class": "a", "load": [-1]}), "other.load[0]: -1 in place of float"),
        (lambda found: found["layers"]["block_1"].update({"class": 3}), "layers.block_1.class: 3 in place of string"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    found = documents.to_json(WHOLE)
    change(found)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        documents.from_json(found, Whole)


def test_older_versions_are_converted_and_newer_ones_are_refused(tmp_path):
    path = tmp_path / "whole.json"
    versions = {1: lambda value: WHOLE, 2: functools.partial(documents.from_json, kind=Whole)}
    for content in ({"old": True}, {"version": 1}, documents.to_json(WHOLE)):
        storage.write_json(path, content)
        assert documents.read(path, versions) == WHOLE
    for content, words in (
        ({"version": 3}, "schema version 3; this version of the library reads up to 2"),
        ({"version": "x"}, "schema version 'x'"),
        ({"version": 2}, "no 'layers'"),
    ):
        storage.write_json(path, content)
        with pytest.raises(storage.DamagedFileError, match=words):
            documents.read(path, versions)
    with pytest.raises(FileNotFoundError):
        documents.read(tmp_path / "none.json", versions)
