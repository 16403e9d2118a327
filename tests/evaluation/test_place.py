import pathlib

import pytest

from vmoe_inform.evaluation.place import Place, names_of, parse


def test_a_step_may_be_named(tmp_path):
    assert parse("runs/a") == Place(pathlib.Path("runs/a"))
    assert parse("runs/a@120") == Place(pathlib.Path("runs/a"), 120)
    for text in ("runs/a@last", "@3", "runs/a@-1"):
        with pytest.raises(ValueError, match=f"--workdir: expected .* FOLDER@STEP .*; received '{text}'"):
            parse(text)


def test_a_folder_that_is_called_so_is_itself(tmp_path):
    (tmp_path / "mixing@2").mkdir()
    assert parse(str(tmp_path / "mixing@2")) == Place(tmp_path / "mixing@2")
    assert parse(f"{tmp_path}/mixing@2@8") == Place(tmp_path / "mixing@2", 8)


def test_a_named_step_has_files_of_its_own():
    newest, named = Place(pathlib.Path("run")), Place(pathlib.Path("run"), 4)
    assert newest.results == pathlib.Path("run/evaluation/results.json")
    for kind in ("results", "examples", "report"):
        assert getattr(newest, kind) != getattr(named, kind)
        assert "step_4" in getattr(named, kind).name


def test_names_are_short_but_not_the_same():
    assert names_of([parse("runs/a"), parse("runs/b@3"), parse("runs/b")]) == ["a", "b@3", "b"]
    assert names_of([parse("x/a"), parse("y/a")]) == ["x/a", "y/a"]
    with pytest.raises(ValueError, match=r"each run or checkpoint once; received 'a@2, b/\.\./a@2'"):
        names_of([parse("a@2"), parse("b/../a@2")])
