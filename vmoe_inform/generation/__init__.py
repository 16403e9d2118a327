"""Text that a language model writes, one token after the other."""

from vmoe_inform.generation.decoder import Decoder
from vmoe_inform.generation.open_run import open_run
from vmoe_inform.generation.sampling import Sampling, choose
from vmoe_inform.generation.write import Text, write_text

__all__ = ["Decoder", "Sampling", "Text", "choose", "open_run", "write_text"]
