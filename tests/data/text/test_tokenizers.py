"""Text to token ids and back, and what a tokenizer is recognised by."""

import json

import numpy as np
import pytest

from vmoe_inform.data.text import tokenizers
from vmoe_inform.data.text.bpe import BpeTokenizer
from vmoe_inform.data.text.words import WordTokenizer

LINES = ("A cat sat .", "a dog sat on a cat", "")


def word_tokenizer(**options):
    return WordTokenizer.learn(LINES, 100, **options)


def test_the_most_frequent_words_have_the_first_ids_and_equal_ones_are_in_order():
    assert word_tokenizer().vocabulary == ("<unk>", "<eos>", "a", "cat", "sat", ".", "A", "dog", "on")
    assert WordTokenizer.learn(LINES, 5).vocabulary == ("<unk>", "<eos>", "a", "cat", "sat")


def test_lines_are_encoded_with_their_ends():
    tokenizer = WordTokenizer.learn(LINES, 5)
    assert tokenizer.encode_lines(LINES).tolist() == [0, 3, 4, 0, 1, 2, 0, 4, 0, 2, 3, 1, 1]
    assert tokenizer.encode_lines(LINES).dtype == tokenizer.encode("a").dtype == np.int32
    assert tokenizer.encode("a  cat\n sat").tolist() == [2, 3, 4]
    assert tokenizer.encode_lines([]).shape == (0,)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Whale: any of the cat's", ["whale", ":", "any", "of", "the", "cat's"]),
        ('"man-made" <unk>', ['"', "man", "-", "made", '"', "<unk>"]),
        ("Straße, 3.5 < 4", ["straße", ",", "3", ".", "5", "<", "4"]),
    ],
)
def test_text_as_people_write_it_has_its_marks_split_off(line, expected):
    assert word_tokenizer(splitting="marks").words(line) == expected


def test_decoding_gives_the_lines():
    tokenizer = word_tokenizer()
    assert tokenizer.decode(tokenizer.encode_lines(LINES)) == "A cat sat .\na dog sat on a cat\n\n"
    assert tokenizer.tokens(tokenizer.encode("a bird")) == ["a", "<unk>"]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (["<unk>", "<eos>", "a", "a"], "words that occur once; received 'a'"),
        (["<unk>", "a"], "<eos> among its words"),
        (["<unk>", "<eos>", "New York"], "without white space; received 'New York'"),
        (["<unk>", "<eos>", ""], "without white space; received ''"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        WordTokenizer(vocabulary)


def test_no_words_make_no_vocabulary():
    with pytest.raises(ValueError, match=r"data: expected text with words; received nothing"):
        WordTokenizer.learn(["", "  "], 10)
    with pytest.raises(ValueError, match=r"model.vocabulary_size: expected at least 3"):
        WordTokenizer.learn(LINES, 2)


@pytest.fixture(scope="module")
def bpe():
    return BpeTokenizer.learn(LINES * 5, 265)


def test_bytes_leave_no_text_unknown(bpe):
    assert (bpe.size, bpe.unknown, bpe.end_of_line) == (265, None, 0)
    for text in ("a cat", "Straße 日本", "  two  spaces", "a <unk>"):
        assert bpe.decode(bpe.encode(text)) == text
    assert bpe.encode(" cat").tolist() == bpe.encode_lines([" cat"]).tolist()[:-1]
    assert len(bpe.encode(" cat")) < 4


def test_pairs_decode_to_lines(bpe):
    assert bpe.decode(bpe.encode_lines(LINES)) == "\n".join(LINES) + "\n"
    assert bpe.tokens(bpe.encode_lines(["é"]))[-1] == "<eos>"


def test_many_lines_are_encoded_as_one_by_one(bpe, monkeypatch):
    whole = bpe.encode_lines(LINES)
    monkeypatch.setattr("vmoe_inform.data.text.bpe._LINES_AT_ONCE", 2)
    np.testing.assert_array_equal(bpe.encode_lines(LINES), whole)


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"model.vocabulary_size: expected at least 257 .*; received 256"):
        BpeTokenizer.learn(LINES, 256)


@pytest.mark.parametrize("kind", ["words", "marks", "bpe"])
def test_a_tokenizer_is_the_same_after_it_was_written(kind, bpe, tmp_path):
    tokenizer = bpe if kind == "bpe" else word_tokenizer(splitting="spaces" if kind == "words" else "marks")
    tokenizers.write(tmp_path / "tokenizer.json", tokenizer)
    again = tokenizers.read(tmp_path / "tokenizer.json")
    assert tokenizers.fingerprint(again) == tokenizers.fingerprint(tokenizer)
    np.testing.assert_array_equal(again.encode_lines(LINES), tokenizer.encode_lines(LINES))
    assert (again.size, again.unknown, again.end_of_line) == (tokenizer.size, tokenizer.unknown, tokenizer.end_of_line)


def test_a_file_of_the_library_is_read_and_gets_an_end_of_line(bpe, tmp_path):
    content = json.loads(bpe.library_tokenizer.to_str())
    content["added_tokens"] = []
    vocabulary = content["model"]["vocab"]
    del vocabulary["<eos>"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    tokenizer = tokenizers.read(path)
    assert tokenizer.decode(tokenizer.encode_lines(["a cat"])) == "a cat\n"
    assert tokenizer.end_of_line < tokenizer.size


def test_equal_text_learns_equal_pairs(bpe):
    assert tokenizers.fingerprint(BpeTokenizer.learn(LINES * 5, 265)) == tokenizers.fingerprint(bpe)


def test_another_vocabulary_has_another_fingerprint():
    one = tokenizers.fingerprint(word_tokenizer())
    assert one != tokenizers.fingerprint(word_tokenizer(splitting="marks"))
    assert one != tokenizers.fingerprint(WordTokenizer.learn(LINES, 5))
    tokenizers.check_same(word_tokenizer(), "")
    tokenizers.check_same(word_tokenizer(), one)
    with pytest.raises(ValueError, match=f"data.vocabulary_hash: expected the vocabulary of the run .{one[:12]}."):
        tokenizers.check_same(WordTokenizer.learn(LINES, 5), one)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON as it was written"),
        ("[1]", "a list|an object|list"),
        ('{"kind": "words"}', "tokenizer: expected a word tokenizer as it was written; received \"no 'splitting'\""),
        ('{"kind": "words", "splitting": "spaces", "vocabulary": [1]}', "vocabulary"),
        ('{"kind": "trees"}', "kind of tokenizer: expected one of bpe, words; received 'trees'"),
        ('{"model": {}}', "a file of the library tokenizers"),
    ],
)
def test_a_damaged_file_is_one_line(content, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        tokenizers.read(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("line", ["", "  ", "a cat", "  A  cat, sat. ", "naïve 猫 \t<unk>\u2003dog'  "])
def test_pieces_are_the_words_of_a_line_with_its_tokens(line):
    for tokenizer in (word_tokenizer(), word_tokenizer(splitting="marks"), BpeTokenizer.learn(LINES, 280)):
        pieces = tokenizer.pieces(line)
        found = np.concatenate([np.zeros(0, np.int32), *(ids for _, ids in pieces)])
        np.testing.assert_array_equal(found, tokenizer.encode_lines([line])[:-1])
        assert [text.strip() for text, _ in pieces if text.strip()] == tokenizer.words(line)
    assert "".join(text for text, _ in pieces) == line
    for text, ids in pieces:
        assert tokenizer.decode(ids) == text
