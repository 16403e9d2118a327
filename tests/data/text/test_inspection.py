"""``data.check`` of text."""

import dataclasses
import io

import rich.console

from tests import processes
from tests.data.text.test_corpora import settings
from tests.data.text.test_wikitext import TEXT, archive
from vmoe_inform.data.text import inspection


def examine(config, *, whole=False):
    return {finding.name: finding for finding in inspection.examine_all(config, whole=whole)}


def shown(findings):
    console = rich.console.Console(width=100, file=io.StringIO())
    console.print(inspection.table(list(findings.values())))
    return console.file.getvalue()


def test_splits_are_counted(tmp_path):
    config = settings(source="wikitext", directory=str(archive(tmp_path)))
    findings = examine(config)
    counts = {name: (one.count, one.num_tokens, one.problems) for name, one in findings.items()}
    assert counts == {
        "train": (4, 14, []),  # "= Valkyria =", "the <unk> @-@ rifle , the end", and four ends
        "validation": (3, 9, []),
        "test": (2, 6, []),
        "vocabulary": (12, 0, []),
    }
    assert findings["test"].unknown_share == 1 / 6
    assert [name in shown(findings) for name in ("tokens", "words ┃", "classes", "7.14%")] == [True, False, False, True]
    assert "expected 3,760 lines as published; received 3" in examine(config, whole=True)["validation"].problems
    assert "expected 1,801,350 or 36,718 lines" in examine(config, whole=True)["train"].problems[0]


def test_pairs_have_other_counts_than_words(tmp_path):
    findings = examine(settings(300, source="wikitext", directory=str(archive(tmp_path)), tokenizer="bpe"))
    assert findings["test"].num_words == 6 < findings["test"].num_tokens
    assert "words ┃" in shown(findings)


def test_labelled_texts_are_compared_with_the_model():
    data = {"source": "wordnet", "train_split": "validation", "test_split": "validation"}
    config = settings(**data)
    model = dataclasses.replace(config.model, num_classes=44, num_tokens=100)
    findings = examine(dataclasses.replace(config, model=model))
    assert list(findings) == ["validation", "vocabulary"]
    assert findings["validation"].num_classes == 45
    assert findings["validation"].problems == ["expected 44 classes (model.num_classes); received 45"]
    model = dataclasses.replace(model, num_classes=45, num_tokens=20)
    assert examine(dataclasses.replace(config, model=model))["validation"].problems == [
        "expected texts of at most 20 tokens (model.num_tokens); received 98"
    ]


def test_what_is_wrong_is_said_once_a_split(tmp_path):
    findings = examine(settings(source="text", directory=str(tmp_path)))
    assert [len(one.problems) for one in findings.values()] == [1, 1, 1, 0]
    assert "not readable" in shown(findings)
    archive(tmp_path, TEXT)
    findings = examine(settings(source="wikitext", directory=str(tmp_path), vocabulary_hash="0123456789abcdef"))
    assert [len(one.problems) for one in findings.values()] == [0, 0, 0, 1]
    assert (
        "data.vocabulary_hash: expected the vocabulary of the run (0123456789ab)" in findings["vocabulary"].problems[0]
    )


def test_the_command_reports_text(tmp_path):
    archive(tmp_path)
    flags = ["--config=wordnet", "--config.data.source=wikitext", f"--config.data.directory={tmp_path}"]
    (tmp_path / "runs").mkdir()
    lines = [(*flags, "--expected_counts=any"), tuple(flags)]
    any_number, published = processes.run_many("data.check", lines, tmp_path / "runs", imports=("data.inspection",))
    assert (any_number[0], published[0]) == (0, 2)
    assert max(len(line) for line in any_number[1].splitlines()) <= 80
    assert "test: expected 4,358 lines as published; received 2" in published[1]
