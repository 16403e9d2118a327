"""Lines by name, corpora, and which words make a vocabulary."""

import dataclasses
import pathlib

import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.data.text import corpora, sources, wordnet
from vmoe_inform.data.text.lines import LINES, Lines
from vmoe_inform.data.text.words import WordTokenizer

DEBIANS = pathlib.Path("/usr/share/wordnet")
TEXT = {"train": [f"line {number} of the text" for number in range(640)], "test": ["line 7", "unseen words"]}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    def made(data, split):
        return Lines(lambda: iter(TEXT[split]), "made up", separated=True)

    monkeypatch.setitem(LINES._entries, "made", made)


def settings(vocabulary_size=1000, **data):
    config = config_lib.default("tokens")
    config.train.steps = 1
    config.model.vocabulary_size = vocabulary_size
    config.data.update({"source": "made", **data})
    return config_lib.as_language(config_lib.parse(config))


def test_a_corpus_is_all_tokens_of_a_split():
    config = settings()
    tokenizer = corpora.learn_tokenizer(config)
    test = corpora.load(config, "test", tokenizer)
    assert test.ids.tolist() == [*tokenizer.encode("line 7"), 1, 0, 0, 1]
    assert (test.num_words, test.origin, list(test.lines)) == (6, "made up", TEXT["test"])
    assert len(corpora.training(config, tokenizer).ids) == 640 * 6
    np.testing.assert_array_equal(corpora.test(config, tokenizer).ids, test.ids)


def test_pairs_count_the_words_of_the_text():
    config = settings(tokenizer="bpe", vocabulary_size=300)
    test = corpora.load(config, "test", corpora.learn_tokenizer(config))
    assert test.num_words == 6
    assert len(test.ids) > 6


def test_held_out_lines_are_blocks_of_the_training_split():
    config = settings(validation_share=0.2)
    tokenizer = corpora.learn_tokenizer(config)
    training, test = list(sources.training_lines(config.data)), list(sources.test_lines(config.data))
    assert sorted(training + test) == sorted(TEXT["train"])
    assert test[:64] == TEXT["train"][:64]
    assert len(test) == 128
    assert corpora.test(config, tokenizer).ids.shape == (128 * 6,)
    assert not set(tokenizer.vocabulary) & {f"{number}" for number in range(64)}  # words of the held-out lines


def test_a_vocabulary_file_lists_the_words(tmp_path):
    (tmp_path / "words.txt").write_text("line\nof\n")
    tokenizer = corpora.learn_tokenizer(settings(vocabulary=str(tmp_path / "words.txt")))
    assert tokenizer.vocabulary == ("<unk>", "<eos>", "line", "of")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n<unk>\n", "expected a word a line; received 'no word'"),  # every word would be unknown
        ("dog\ncat\ndog\n", "vocabulary: expected words that occur once; received 'dog'"),
        ("a\nb c\n", "vocabulary: expected words without white space; received 'b c'"),
    ],
)
def test_a_bad_vocabulary_file_is_named(text, message, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        corpora.learn_tokenizer(settings(vocabulary=str(path)))


def test_a_token_beyond_the_models_vocabulary_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("line\nof\n")
    message = "model.vocabulary_size: expected at least 4, the tokens of the tokenizer; received 3"
    with pytest.raises(ValueError, match=message):
        corpora.learn_tokenizer(settings(3, vocabulary=str(tmp_path / "words.txt")))
    with pytest.raises(ValueError, match="expected at least 4"):
        corpora.check_size(settings(3), WordTokenizer(("<unk>", "<eos>", "line", "of")))


def test_no_lines_are_refused():
    tokenizer = corpora.learn_tokenizer(settings())
    with pytest.raises(ValueError, match=r"data: expected text; received 'no lines of nothing'"):
        corpora.corpus(Lines(lambda: iter(()), "nothing"), tokenizer)


def test_an_unknown_source_names_the_known_ones():
    config = settings()
    data = dataclasses.replace(config.data, source="wordnett")
    with pytest.raises(ValueError, match=r"source of lines: expected one of .*did you mean 'wordnet'"):
        sources.lines(data, "train")


# ------------------------------------------------------------------------------------------------------------- WordNet


def test_the_glosses_are_split_into_blocks_of_neighbours():
    data = settings(source="wordnet").data
    by_split = {split: list(sources.lines(data, split)) for split in wordnet.SPLITS}
    assert {split: len(lines) for split, lines in by_split.items()} == {
        "train": 105_537,
        "validation": 6_041,  # 5 % of 117,659, and of each of the 45 files up to a block more
        "test": 6_081,
    }
    assert by_split["train"][0].startswith("entity: that which is perceived or known")
    assert by_split["test"][0] == "native: indigenous plants and animals"
    texts = sources.labelled(data, "test")
    assert list(texts.texts) == by_split["test"]
    assert texts.class_names[texts.labels[0]] == "noun.Tops"
    for split in wordnet.SPLITS:
        assert len(np.unique(sources.labelled(data, split).labels)) == 45


def test_classes_are_numbered_as_the_model_knows_them():
    names = wordnet.LEXICOGRAPHER_FILES[::-1]
    data = dataclasses.replace(settings(source="wordnet").data, class_names=names)
    texts = sources.labelled(data, "test")
    assert texts.class_names == names
    assert names[texts.labels[0]] == "noun.Tops"
    with pytest.raises(ValueError, match="classes of split 'test': expected the model's 2 classes"):
        sources.labelled(dataclasses.replace(data, class_names=("a", "b")), "test")


def test_another_split_is_refused():
    with pytest.raises(
        ValueError, match="split of wordnet: expected one of 'train', 'validation', 'test'; received 'dev'"
    ):
        sources.lines(settings(source="wordnet").data, "dev")


def test_a_dictionary_of_wordnet_is_read(tmp_path):
    header = "  1 This software and database is being provided to you  \n"
    entries = {
        "noun": '00003553 05 n 02 whale 0 sea_beast 0 001 @ 00002684 n 0000 | any of the larger mammals; "a whale"  \n',
        "verb": "00001740 29 v 01 breathe 0 000 | draw air  \n",
        "adj": "00013662 00 s 01 ill_at_ease(p) 0 000 | uneasy  \n",
        "adv": "00001740 02 r 01 a_cappella 0 000 | alone  \n",
    }
    for part, text in entries.items():
        (tmp_path / f"data.{part}").write_text(header + text)
    data = settings(source="wordnet", directory=str(tmp_path)).data
    texts = sources.labelled(data, "train")
    assert list(texts.texts) == [
        'whale: any of the larger mammals; "a whale"',
        "breathe: draw air",
        "ill at ease: uneasy",
        "a cappella: alone",
    ]
    assert [texts.class_names[label] for label in texts.labels] == ["noun.animal", "verb.body", "adj.all", "adv.all"]
    (tmp_path / "data.adv").write_text("nothing like it\n")
    with pytest.raises(ValueError, match=r"data.adv:1: expected a synset of WordNet with its gloss; received 'nothing"):
        sources.lines(data, "train")
    with pytest.raises(FileNotFoundError, match=r"data.directory: expected a folder with WordNet's files"):
        sources.lines(settings(source="wordnet", directory=str(tmp_path / "nowhere")).data, "train")


@pytest.mark.skipif(not DEBIANS.is_dir(), reason="Debian's package wordnet-base is not installed")
def test_the_embedded_glosses_are_debians():
    config = settings(source="wordnet", directory=str(DEBIANS))
    for split in wordnet.SPLITS:
        embedded = sources.lines(settings(source="wordnet").data, split)
        assert list(sources.lines(config.data, split)) == list(embedded)


@pytest.mark.parametrize(
    ("field", "expected"),
    [("tokenizer", "'words', 'bpe' or the file of a tokenizer"), ("vocabulary", "a file with a word a line")],
)
def test_a_missing_file_is_said(field, expected, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"data.{field}: expected {expected}; received '.*nothing.json'"):
        corpora.learn_tokenizer(settings(**{field: str(tmp_path / "nothing.json")}))
