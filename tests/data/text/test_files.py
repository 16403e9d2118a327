"""Text files: lines, the files of a split, and a user's own text."""

import re

import pyarrow
import pyarrow.parquet
import pytest

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import files, sources


def of(root, split="train", **data):
    return list(sources.lines(TextDataConfig(source="text", directory=str(root), **data), split))


def test_only_line_feeds_end_a_line(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffone\x0btwo\u2028\r\n\r\nthree".encode())
    assert list(files.lines(tmp_path / "a")) == ["one\x0btwo\u2028", "", "three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{}: expected text; received 'an empty file'"),
        (b"a\nb\xff\n", "{}:2: expected text in UTF-8; received 'byte 0xff (byte 2 of the line)'"),
    ],
)
def test_a_bad_file_is_named(content, message, tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message.format(path))):
        of(tmp_path)


def test_a_split_is_a_file_a_folder_or_a_table(tmp_path):
    (tmp_path / "one.txt").write_text("a\nb\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "2.txt").write_text("d\n")
    (tmp_path / "two" / "1.txt").write_text("c\n")
    (tmp_path / "three.csv").write_text('number,text\n1,"e, f\ng"\n')
    pyarrow.parquet.write_table(pyarrow.table({"body": ["h\ni"]}), tmp_path / "four.parquet")
    (tmp_path / "five.tokens").write_text("j .\n")
    assert of(tmp_path, "one") == ["a", "b"]
    assert of(tmp_path, "two") == ["c", "d"]
    assert of(tmp_path, "three") == ["e, f", "g"]
    assert of(tmp_path, "four", text_field="body") == ["h", "i"]
    lines = [sources.lines(TextDataConfig(source="text", directory=str(tmp_path)), split) for split in ("one", "five")]
    assert [each.separated for each in lines] == [False, True]


def test_a_missing_split_says_what_is_expected(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data.directory: expected train.txt \(or .tokens, .parquet, .*received"
    ):
        of(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data.directory: expected a folder with train.txt"):
        of(tmp_path / "nowhere")


def test_two_candidates_for_a_split_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "train.tokens").write_text("a\n")
    with pytest.raises(ValueError, match=r"split 'train': expected one file, or one set of shards; received"):
        of(tmp_path)


def test_shards_are_read_in_order_and_all_of_them(tmp_path):
    for number, text in enumerate("ab"):
        (tmp_path / f"train-0000{number}-of-00002.txt").write_text(text)
    assert of(tmp_path) == ["a", "b"]
    (tmp_path / "train-00001-of-00002.txt").unlink()
    with pytest.raises(
        ValueError, match=r"shards of train: expected all of one set; received 'train-00000-of-00002.txt'"
    ):
        of(tmp_path)
