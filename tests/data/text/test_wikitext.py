"""WikiText in its published layouts."""

import pyarrow
import pyarrow.parquet
import pytest

from tests.data.text.test_corpora import settings
from vmoe_inform.data.text import corpora, sources

TEXT = {
    "train": " \n = Valkyria = \n \n the <unk> @-@ rifle , the end \n",
    "validation": " \n = Homarus = \n the <unk> lobster \n",
    "test": " \n = Robert <unk> = \n",
}


def archive(folder, text=TEXT, suffix="tokens"):
    folder.mkdir(parents=True, exist_ok=True)
    for split, content in text.items():
        (folder / f"wiki.{'valid' if split == 'validation' else split}.{suffix}").write_text(content)
    return folder


def parquet(folder, text=TEXT):
    folder.mkdir(parents=True)
    for split, content in text.items():
        rows = ["" if line == " \n" else line for line in content.splitlines(keepends=True)]  # as the published have it
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), folder / f"{split}-00000-of-00001.parquet")
    return folder


def raw(text=TEXT):
    return {split: content.replace("<unk>", "bolt") for split, content in text.items()}


@pytest.mark.parametrize("write", [archive, parquet])
@pytest.mark.parametrize("inside", ["", "wikitext-103-v1"])
def test_layouts_give_the_same_tokens_with_the_published_vocabulary(write, inside, tmp_path):
    write(tmp_path / "root" / inside)
    config = settings(source="wikitext", directory=str(tmp_path / "root"))
    tokenizer = corpora.learn_tokenizer(config)
    # <unk>, <eos>, and all other words of the three splits
    assert set(tokenizer.vocabulary) == {"<eos>", *" ".join(TEXT.values()).split()}
    for split, content in TEXT.items():
        corpus = corpora.load(config, split, tokenizer)
        expected = [word for line in content.splitlines() for word in [*line.split(), "<eos>"]]
        assert tokenizer.tokens(corpus.ids) == expected
        assert corpus.num_words == len(expected)


def test_the_raw_variant_is_refused_for_words_and_taken_for_pairs(tmp_path):
    config = settings(source="wikitext", directory=str(archive(tmp_path / "a", raw(), suffix="raw")))
    message = r"wiki.train.raw: expected the word-level text, whose rare words are <unk>, .*; received 'the raw text'"
    with pytest.raises(ValueError, match=message):
        corpora.learn_tokenizer(config)
    config = settings(source="wikitext", directory=str(tmp_path / "a"), tokenizer="bpe")
    archive(tmp_path / "a")
    for tokenizer, word in (("words", "<unk>"), ("bpe", "bolt")):
        config = settings(source="wikitext", directory=str(tmp_path / "a"), tokenizer=tokenizer)
        assert word in " ".join(sources.lines(config.data, "train")).split()


@pytest.mark.parametrize("folder", ["wikitext-103-raw-v1", "renamed"])
def test_raw_tables_are_told_by_their_words(folder, tmp_path):
    parquet(tmp_path / folder, raw())
    for root in (tmp_path / folder, *([tmp_path] if folder != "renamed" else [])):
        with pytest.raises(ValueError, match="expected the word-level text"):
            sources.lines(settings(source="wikitext", directory=str(root)).data, "train")


def test_a_renamed_raw_file_is_told_by_its_words(tmp_path):
    data = settings(source="wikitext", directory=str(archive(tmp_path, raw()))).data
    with pytest.raises(ValueError, match=r"wiki.train.tokens: expected the word-level text, .*received 'the raw text'"):
        sources.lines(data, "train")


def test_what_is_missing_is_said(tmp_path):
    data = settings(source="wikitext", directory=str(tmp_path)).data
    message = (
        r"data.directory: expected wiki.valid.tokens or validation-\*.parquet in it; received .* without such a file"
    )
    with pytest.raises(FileNotFoundError, match=message):
        sources.lines(data, "validation")
    with pytest.raises(ValueError, match="split of wikitext: expected one of 'train', 'validation', 'test'"):
        sources.lines(data, "valid")
    archive(tmp_path, {"test": ""})
    with pytest.raises(ValueError, match="expected text; received 'an empty file'"):
        sources.lines(data, "test")


def test_two_copies_are_refused(tmp_path):
    archive(tmp_path / "wikitext-103")
    archive(tmp_path / "wikitext-2")
    with pytest.raises(ValueError, match="expected one file, or one set of shards"):
        sources.lines(settings(source="wikitext", directory=str(tmp_path)).data, "test")
