"""The decoder and the tokenizer of a run."""

import jax

from vmoe_inform import config as config_lib
from vmoe_inform import storage
from vmoe_inform.data.text import bpe, tokenizers, words  # noqa: F401  (they register their kinds)
from vmoe_inform.data.text.tokenizers import Tokenizer
from vmoe_inform.generation.decoder import Decoder, check_writes
from vmoe_inform.runs.folder import TOKENIZER_FILE
from vmoe_inform.runs.run import SavedRun
from vmoe_inform.sharding.mesh import make_mesh


def open_run(saved: SavedRun) -> tuple[Tokenizer, Decoder]:
    """The tokenizer that the run keeps, and a decoder with the model on one device.

    Args:
      saved: from :func:`vmoe_inform.runs.run.find`.

    Raises:
      FileNotFoundError: the run keeps no tokenizer.
      ValueError: the run is of no language model, see :class:`Decoder`; or its files are damaged.
    """
    check_writes(saved.config.model)
    data = config_lib.as_language(saved.config).data
    path = saved.folder / TOKENIZER_FILE
    if not storage.exists(path):
        raise FileNotFoundError(f"workdir: expected the tokenizer that the run keeps, {str(path)!r}; received none")
    tokenizer = tokenizers.read(path, within=saved.folder)
    tokenizers.check_same(tokenizer, data.vocabulary_hash)
    run = saved.load_intact(make_mesh(1, 1, jax.devices()[:1]))
    return tokenizer, Decoder(run.config.model, run.variables)
