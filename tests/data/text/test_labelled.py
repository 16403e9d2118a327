"""Labelled text: tables, TFDS, and the movie snippets."""

import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import docstrings, movie_snippets, sources, wordnet


def read(root, split="train", source="table", **data):
    return sources.labelled(TextDataConfig(source=source, directory=str(root), **data), split)


def pairs(texts):
    return [(text, texts.class_names[label]) for text, label in zip(texts.texts, texts.labels, strict=True)]


ROWS = [("a good film", "positive"), ("bad,\nvery bad", "negative"), ('"so so"', "positive")]


def write(root, suffix, rows=ROWS, split="train"):
    path = root / f"{split}{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [r[0] for r in rows], "label": [r[1] for r in rows]}), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    elif suffix == ".tsv":
        path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    else:
        quoted = ['"{}",{}'.format(text.replace('"', '""'), label) for text, label in rows]
        path.write_text("\n".join(["text,label", *quoted]) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_of_each_form_give_the_same(suffix, tmp_path):
    write(tmp_path, suffix)
    texts = read(tmp_path)
    assert (pairs(texts), texts.class_names) == (ROWS, ("negative", "positive"))


def test_a_quotation_mark_in_glues_tables_is_text(tmp_path):
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\n" odd\t1\nplain\t0\n')
    texts = read(tmp_path, "dev", text_field="sentence", train_split="dev")
    assert pairs(texts) == [('" odd', "1"), ("plain", "0")]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_numbers_are_classes_in_their_order(suffix, tmp_path):
    write(tmp_path, suffix, [(f"text {number}", number) for number in (10, 2, 0)])
    assert pairs(read(tmp_path)) == [("text 10", "10"), ("text 2", "2"), ("text 0", "0")]
    assert read(tmp_path).class_names == ("0", "2", "10")


def test_other_splits_have_the_classes_of_training(tmp_path):
    write(tmp_path, ".csv")
    write(tmp_path, ".csv", [("fine", "positive")], split="test")
    assert pairs(read(tmp_path, "test")) == [("fine", "positive")]
    names = ("positive", "negative")  # as a run recorded them
    assert read(tmp_path, "test", class_names=names).labels.tolist() == [0]
    write(tmp_path, ".csv", [("fine", "joyful")], split="test")
    with pytest.raises(
        ValueError, match=r"labels of split 'test': expected the 2 classes of training; received \['joyful'\]"
    ):
        read(tmp_path, "test")


def test_names_of_classes_in_hugging_faces_tables_are_used(tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0]})
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    assert pairs(read(tmp_path)) == [("a", "yes"), ("b", "no")]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".csv", "text,label\na,\n", r"row 1: expected a label \(data.label_field\).*; received ''"),
        (".csv", "text,label\na\n", r"row 1: expected a label .*; received None"),
        (
            ".csv",
            "text,label\na,-1\n",
            r"row 1: expected a label \(data.label_field\); some published test splits have none",
        ),
        (".csv", "text,label\n ,x\n", r"row 1: expected a text \(data.text_field\); received ' '"),
        (
            ".csv",
            "sentence,label\na,x\n",
            r"data.text_field: expected one of the columns of .*: 'sentence', 'label'; received 'text'",
        ),
        (".csv", "text,target\na,x\n", "data.label_field: expected one of the columns"),
        (".csv", "", "expected text; received 'an empty file'"),
        (".csv", "text,label\n", "split 'train': expected labelled texts; received nothing"),
        (".csv", "text,label\n\xff,x\n", "expected text in UTF-8"),
        (".jsonl", '{"text": "a"}\n', "data.label_field: expected one of the columns"),
        (".jsonl", "[1]\n", "train.jsonl:1: expected a JSON object"),
        (".jsonl", '{"text": 3, "label": 1}\n', r"row 1: expected a text \(data.text_field\); received 3"),
        (".parquet", "PAR1", "expected a Parquet file"),
    ],
)
def test_a_table_that_is_damaged_is_one_line(suffix, content, message, tmp_path):
    (tmp_path / f"train{suffix}").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_validation_share_parts_the_training_texts(tmp_path):
    rows = [(f"text {number}", number % 2) for number in range(100)]
    write(tmp_path, ".csv", rows)
    data = TextDataConfig(source="table", directory=str(tmp_path), validation_share=0.2)
    training, test = sources.training_texts(data), sources.test_texts(data)
    assert sorted([*training.texts, *test.texts]) == sorted(text for text, _ in rows)
    assert len(test.texts) == 21  # as held_out of 100 records
    assert pairs(test)[1] == ("text 5", "1")  # 5 / 1.618 mod 1 = 0.09
    write(tmp_path, ".csv", rows[:3])
    with pytest.raises(
        ValueError, match=r"data.validation_share: expected a share that leaves texts of split 'train' \(3\)"
    ):
        sources.training_texts(TextDataConfig(source="table", directory=str(tmp_path), validation_share=0.99))


# ------------------------------------------------------------------------------------------------------------ snippets

RATED = "".join(
    f"{n}\t{rating}\tsnippet {n}\r\n" for n, rating in enumerate([-3, -1, 0, 0.5, 1, 3.9, 2, -0.9, -2.5, 0.9], 1)
)


def packed(root, form):
    content = RATED.encode()
    if form == "file":
        (root / "movieReviewSnippets_GroundTruth.txt").write_bytes(content)
        return
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        member = tarfile.TarInfo("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    if form == "tar":
        (root / "hutto_ICWSM_2014.tar.gz").write_bytes(inner.getvalue())
        return
    with zipfile.ZipFile(root / "vaderSentiment-0.5.zip", "w") as outer:
        outer.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())


@pytest.mark.parametrize("form", ["file", "tar", "zip"])
def test_snippets_are_classed_by_their_rating(form, tmp_path):
    packed(tmp_path, form)
    five = read(tmp_path, source="movie_snippets")
    assert [name for _, name in pairs(five)] == [
        "very negative", "negative", "neutral", "neutral", "positive", "very positive", "positive", "negative",
    ]  # fmt: skip
    assert pairs(read(tmp_path, "validation", "movie_snippets")) == [("snippet 9", "very negative")]
    two = read(tmp_path, source="movie_snippets_2")
    assert [name for _, name in pairs(two)] == ["negative", "negative", "positive", "positive", "positive", "negative"]
    assert pairs(read(tmp_path, "test", "movie_snippets_2")) == [("snippet 10", "positive")]


def test_damaged_snippets_are_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"expected movieReviewSnippets_GroundTruth.txt, hutto_ICWSM_2014.tar.gz or"
    ):
        read(tmp_path, source="movie_snippets")
    (tmp_path / "hutto_ICWSM_2014.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"expected the file as vaderSentiment 0.5 has it; received .ReadError"):
        read(tmp_path, source="movie_snippets")
    path = tmp_path / "movieReviewSnippets_GroundTruth.txt"
    path.write_text("1\tgood\ttext\n")
    with pytest.raises(ValueError, match=r"GroundTruth.txt:1: expected a number, a rating and a text between tabs"):
        read(tmp_path, source="movie_snippets")
    assert movie_snippets.SPLITS == wordnet.SPLITS


# ---------------------------------------------------------------------------------------------------------- docstrings


def test_docstrings_are_read_from_files_that_are_not_run(tmp_path, monkeypatch):
    class Distribution:
        version = "1.2.3"
        files = [docstrings.Path(f"package/{name}.py") for name in "abcd"] + [docstrings.Path("package/tests/e.py")]

        def locate_file(self, file):
            return tmp_path / file

    (tmp_path / "package" / "tests").mkdir(parents=True)
    sources_of = {
        "a": '"""Module a.\n\nMore.\n"""\nraise RuntimeError("run")\n',
        "b": 'def f():\n    """Module a.\n\n    More.\n    """\n',  # as in a
        "c": 'class C:\n    """Of c."""\n',
        "d": "syntax error",
        "tests/e": '"""Of a test."""',
    }
    for name, text in sources_of.items():
        (tmp_path / "package" / f"{name}.py").write_text(text)
    monkeypatch.setattr(docstrings, "PACKAGES", ("numpy",))
    monkeypatch.setattr(docstrings.importlib.metadata, "distribution", lambda name: Distribution())
    docstrings._files.cache_clear()
    data = TextDataConfig(source="docstrings")
    assert list(sources.lines(data, "train")) == ["Module a.", "More.", "Of c."]
    assert sources.lines(data, "train").origin.startswith("docstrings of numpy 1.2.3")
    docstrings._files.cache_clear()
    with pytest.raises(ValueError, match=r"data.directory: expected '' with data.source = 'docstrings'"):
        sources.lines(TextDataConfig(source="docstrings", directory="x"), "train")


@pytest.mark.slow
def test_docstrings_of_the_pinned_packages_are_longer_than_wordnet():
    data = TextDataConfig(source="docstrings")
    words = {split: sum(1 + len(line.split()) for line in sources.lines(data, split)) for split in docstrings.SPLITS}
    assert words["train"] > 1_500_000
    assert min(words.values()) > 50_000
