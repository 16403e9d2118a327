"""Examples for the report: clean records with what the model said of them and the experts of their tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vmoe_inform.axes import Bool, Int
from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images import pixels
from vmoe_inform.data.sources import Source
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.data.text.lines import LabelledTexts
from vmoe_inform.data.text.tokenizers import Tokenizer
from vmoe_inform.evaluation import metrics
from vmoe_inform.tasks.predictions import Predictions, TokenLosses

Arrays = dict[str, np.ndarray]  # as the file of examples holds them
Chosen = Mapping[str, Int[np.ndarray, "n N K"]]  # experts of every token by MoE layer, the first choice first

_NUM_EXAMPLES = 8
_MOST_TOKENS = 64  # of a text


def choose(task: Any, source: Any, answers: Any, chosen: Chosen) -> Arrays:
    """A few records, each from all over the set, which may be sorted.

    Args:
      task: of the run.
      source: the clean test records.
      answers: of the model, for all of them.
      chosen: the experts of their tokens.

    Returns:
      arrays [n, ...] by name, with ``experts/<block>``, the first choice of each token.
    """
    return _KINDS[type(answers), task.inputs](task, source, answers, chosen)


def _images(task: Any, source: Source, predictions: Predictions, chosen_experts: Chosen) -> Arrays:
    """Up to half of the images misclassified, then others.

    Returns:
      ``image`` uint8 [n, P, P, 3], ``label`` and ``prediction`` (class names) [n], ``confidence`` [n], and
      ``experts/<block>`` [n, rows, columns].
    """
    config: ImageConfig = task.config
    predicted = np.argmax(predictions.logits, axis=-1)
    chosen = _wrong_and_right(predicted == predictions.labels)
    size, side = config.model.image_size_px, config.model.image_size_px // config.model.patch_size_px
    framing = source.framing_in(config.data)
    names = np.asarray(source.class_names)
    return {
        "image": np.stack(
            [pixels.to_square(source.records[int(i)]["image"], size, framing) for i in predictions.indices[chosen]]
        ),
        "label": names[predictions.labels[chosen]],
        "prediction": names[predicted[chosen]],
        "confidence": metrics.max_probability(predictions.logits[chosen]).astype(np.float32),
        # The class token, where there is one, comes first.
        **{
            f"experts/{block}": experts[chosen, -side * side :, 0].reshape(-1, side, side)
            for block, experts in chosen_experts.items()
        },
    }


def _wrong_and_right(is_right: np.ndarray) -> Int[np.ndarray, " k"]:
    """Numbers of up to half wrong answers, then right ones."""
    wrong, right = np.flatnonzero(~is_right), np.flatnonzero(is_right)
    num_wrong = min(len(wrong), max(_NUM_EXAMPLES // 2, _NUM_EXAMPLES - len(right)))
    return np.concatenate([_spread(wrong, num_wrong), _spread(right, _NUM_EXAMPLES - num_wrong)])


def _spread(values: np.ndarray, number: int) -> np.ndarray:
    """``number`` of the values, or all if they are fewer, at even distances."""
    number = min(number, len(values))
    return values[np.arange(number) * len(values) // max(number, 1)]


def _corpus(task: Any, source: Corpus, losses: TokenLosses, chosen_experts: Chosen) -> Arrays:
    """Windows of a corpus, but for the rests with which rows end.

    Returns:
      ``token`` [n, T], empty where there is none, ``nats`` [n, T], how surprised the model was by each, and
      ``experts/<block>`` [n, T].
    """
    num_tokens = losses.mask.sum(axis=1)
    chosen = _spread(np.flatnonzero(num_tokens == num_tokens.max()), _NUM_EXAMPLES)
    length = min(losses.targets.shape[1] - 1, _MOST_TOKENS)
    # The first token of a window is the last target of the one before; each other one is the target before it.
    ids, mask = losses.targets[chosen, :length], losses.mask[chosen, :length]
    return {
        "token": _shown(source.tokenizer, ids, mask),
        "nats": losses.nats[chosen, :length].astype(np.float32),
        **{f"experts/{block}": found[chosen, 1 : length + 1, 0] for block, found in chosen_experts.items()},
    }


def _texts(task: Any, source: LabelledTexts, predictions: Predictions, chosen_experts: Chosen) -> Arrays:
    """Texts, up to half of them misclassified.

    Returns:
      ``token`` [n, T], empty where there is none, ``label`` and ``prediction`` (class names) [n], ``confidence`` [n],
      and ``experts/<block>`` [n, T].
    """
    predicted = np.argmax(predictions.logits, axis=-1)
    chosen = _wrong_and_right(predicted == predictions.labels)
    texts = [task.tokenizer.encode(source.texts[int(i)])[:_MOST_TOKENS] for i in predictions.indices[chosen]]
    length = max(map(len, texts), default=0)
    ids, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
    names = np.asarray(source.class_names)
    return {
        "token": _shown(task.tokenizer, ids, mask),
        "label": names[predictions.labels[chosen]],
        "prediction": names[predicted[chosen]],
        "confidence": metrics.max_probability(predictions.logits[chosen]).astype(np.float32),
        **{f"experts/{block}": found[chosen, :length, 0] for block, found in chosen_experts.items()},
    }


def _shown(tokenizer: Tokenizer, ids: Int[np.ndarray, "n T"], mask: Bool[np.ndarray, "n T"]) -> np.ndarray:
    """Each token as a text to show, empty where it is filler."""
    return np.where(mask, np.array(tokenizer.tokens(ids.reshape(-1)), str).reshape(ids.shape), "")


# By the kind of answers, and ``model.inputs``.
_KINDS: Mapping[tuple[type, str], Callable[[Any, Any, Any, Chosen], Arrays]] = {
    (Predictions, "images"): _images,
    (TokenLosses, "tokens"): _corpus,
    (Predictions, "tokens"): _texts,
}
