"""A prompt and what a model writes after it."""

import dataclasses

import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Int
from vmoe_inform.data.text.tokenizers import Tokenizer
from vmoe_inform.generation.decoder import Decoder
from vmoe_inform.generation.sampling import Sampling, choose


@dataclasses.dataclass(frozen=True)
class Text:
    """A text and its beginning.

    Attributes:
      prompt: token ids of the beginning, without the end of the line before it.
      written: token ids that follow.
      tokenizer: what the ids mean.
    """

    prompt: Int[np.ndarray, " n"]
    written: Int[np.ndarray, " m"]
    tokenizer: Tokenizer

    @property
    def text(self) -> str:
        """All of it, as a line or several."""
        return self.tokenizer.decode(np.concatenate([self.prompt, self.written]))

    @property
    def num_unknown(self) -> int:
        """Words of the prompt that are not in the vocabulary."""
        return int(np.sum(self.prompt == self.tokenizer.unknown)) if self.tokenizer.unknown is not None else 0


def write_text(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_tokens: int,
    lines: int = 1,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    seed: int = 0,
    write_unknown: bool = False,
) -> Text:
    """Continues a prompt, which begins a line.

    Args:
      decoder: of the run's model; forgets what it has read.
      tokenizer: of the run.
      prompt: any text, or none.
      max_tokens: most tokens to write.
      lines: ends of lines to write; the last one ends the text, and is not in it.
      sampling: how tokens are chosen.
      seed: of the choices.
      write_unknown: whether the token of unknown words may be written.

    Raises:
      ValueError: prompt and ``max_tokens`` together are more than the model can read.
    """
    ids = tokenizer.encode(prompt)
    if decoder.longest is not None and len(ids) + max_tokens > decoder.longest:
        reason = f"the model attends to {decoder.longest} (model.num_tokens)"
        if len(ids) >= decoder.longest:
            raise checks.error("prompt", f"at most {decoder.longest - 1} tokens: {reason}", f"{len(ids)} tokens")
        expected = f"at most {decoder.longest - len(ids)} after a prompt of {len(ids)} tokens: {reason}"
        raise checks.error("max_tokens", expected, max_tokens)
    random = np.random.default_rng(seed)
    never = () if write_unknown or tokenizer.unknown is None else (tokenizer.unknown,)
    written: list[int] = []
    decoder.restart()
    logits = decoder.read([tokenizer.end_of_line, *ids.tolist()])
    while True:
        token = choose(logits[: tokenizer.size], sampling, random, never=never)
        if token == tokenizer.end_of_line:
            lines -= 1
            if lines == 0:
                break
        written.append(token)
        if len(written) == max_tokens:
            break
        logits = decoder.read([token])
    return Text(ids, np.asarray(written, np.int32), tokenizer)
