import pathlib

import pytest

from vmoe_inform import storage
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.runs.checkpoint_path import CheckpointPath, names_of, parse, parse_list


def test_a_step_may_be_named(tmp_path):
    assert parse("runs/a") == CheckpointPath(pathlib.Path("runs/a"))
    assert parse("runs/a@120") == CheckpointPath(pathlib.Path("runs/a"), 120)
    for text in ("runs/a@last", "@3", "runs/a@-1"):
        with pytest.raises(ValueError, match=f"--workdir: expected .* FOLDER@STEP .*; received '{text}'"):
            parse(text)


def test_a_folder_that_is_called_so_is_itself(tmp_path):
    (tmp_path / "mixing@2").mkdir()
    assert parse(str(tmp_path / "mixing@2")) == CheckpointPath(tmp_path / "mixing@2")
    assert parse(f"{tmp_path}/mixing@2@8") == CheckpointPath(tmp_path / "mixing@2", 8)


def test_a_list_of_folders_whatever_they_are_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("a,b", "ü x=1", "c@7", "home/d"):
        pathlib.Path(name).mkdir(parents=True)
    paths = lambda *texts: [str(path) for path in parse_list(texts, flag="--workdir")]
    assert paths() == []
    assert paths("x,y@3", "z") == ["x", "y@3", "z"]
    assert paths("a,b", "a,b@12", "ü x=1,c@7", "c@7@3") == ["a,b", "a,b@12", "ü x=1", "c@7", "c@7@3"]
    assert parse_list(["a,b@12"], flag="--workdir") == [CheckpointPath(pathlib.Path("a,b"), 12)]
    assert paths("~/d@4", "c@7,~/d") == [f"{tmp_path}/home/d@4", "c@7", f"{tmp_path}/home/d"]
    long = ",".join(["runs"] * 2000)  # as a whole no path
    assert paths(long) == ["runs"] * 2000
    for text, message in {
        "x,,y": "expected a comma list of folders without empty items; received 'x,,y'",
        "": "expected a comma list of folders without empty items; received ''",
        "x,s3://bucket/y": r"expected path on this machine, or gs://BUCKET/NAME .*; received 's3://bucket/y'",
        "s3://bucket/y@3": "expected .*; received 's3://bucket/y@3'",
        "x@" + "9" * 30: "STEP: expected int >= 0 .*; received 9+",
    }.items():
        with pytest.raises(ValueError, match=f"--compare.*{message}"):
            parse_list([text], flag="--compare")


def test_folders_in_a_bucket(bucket_folder):
    storage.write_text(bucket_folder / "called@7" / "config.json", "{}")
    given = f"{bucket_folder}/a@3,{bucket_folder}/b/,{bucket_folder}/called@7"
    paths = parse_list([given, f"{bucket_folder}/called@7@8"], flag="--workdir")
    assert [(path.folder.name, path.step) for path in paths] == [
        ("a", 3),
        ("b", None),
        ("called@7", None),
        ("called@7", 8),
    ]
    assert str(paths[0]) == f"{bucket_folder}/a@3"


def test_a_named_step_has_files_of_its_own():
    newest, named = (EvaluationFiles(CheckpointPath(pathlib.Path("run"), step)) for step in (None, 4))
    assert newest.results == pathlib.Path("run/evaluation/results.json")
    for kind in ("results", "examples", "report"):
        assert getattr(newest, kind) != getattr(named, kind)
        assert "step_4" in getattr(named, kind).name


def test_names_are_short_but_not_the_same():
    assert names_of([parse("runs/a"), parse("runs/b@3"), parse("runs/b")]) == ["a", "b@3", "b"]
    assert names_of([parse("x/a"), parse("y/a")]) == ["x/a", "y/a"]
    with pytest.raises(ValueError, match=r"each run or checkpoint once; received 'a@2, b/\.\./a@2'"):
        names_of([parse("a@2"), parse("b/../a@2")])
