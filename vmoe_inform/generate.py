r"""Continues a text with a trained language model, one token after the other.

    python -m vmoe_inform.generate --workdir=DIR[@STEP] --prompt="whale :" [--temperature=0.8] [--top_k=40] [--seed=0]

The prompt begins a line. The text ends with its line, after --lines=N lines or --max_tokens=N tokens. --temperature=0
takes the likeliest token each time. Words that are not in the vocabulary are read as <unk>, which is only written with
--unknown. The tokenizer is the run's: no training data is needed.

Each token takes the work of one token: keys, values and what routers know of the tokens before are kept. The result is
that of a pass over the whole text. Exit codes: 0 done, 2 bad input.
"""

from absl import flags, logging

from vmoe_inform import checks, command_line
from vmoe_inform.runs import checkpoint_path

_WORKDIR = command_line.define_run_path("workdir", "Folder of the run, or FOLDER@STEP.")
_PROMPT = command_line.define("prompt", str, "", "Beginning of the text.")
_TEMPERATURE = command_line.define(
    "temperature", checks.NonNegativeFloat, 1.0, "Divides the logits; 0 takes the likeliest token."
)
_TOP_K = command_line.define("top_k", checks.PositiveInt | None, None, "Draw from the K likeliest; default: all.")
_SEED = command_line.define("seed", checks.Seed, 0, "Of the choice of tokens.")
_MAX_TOKENS = command_line.define(
    "max_tokens", checks.PositiveInt | None, None, "Most tokens to write; default: what the model attends to, or 256."
)
_LINES = command_line.define("lines", checks.PositiveInt, 1, "Lines to write.")
_UNKNOWN = flags.DEFINE_bool("unknown", False, "Whether <unk> may be written.")
_HERE = command_line.define_machine()

_DEFAULT_TOKENS = 256  # where attention spans sequences


def main(_: list[str]) -> None:
    """Prints the text."""
    given = checkpoint_path.parse(command_line.required(_WORKDIR, "the folder of a run"))
    here = _HERE()
    from vmoe_inform import generation
    from vmoe_inform.runs import run as runs

    saved = runs.find(given.folder, given.step, here=here)
    tokenizer, decoder = generation.open_run(saved)
    prompt_tokens = len(tokenizer.encode(_PROMPT.value))
    most = _DEFAULT_TOKENS if decoder.longest is None else max(decoder.longest - prompt_tokens, 1)
    found = generation.write_text(
        decoder,
        tokenizer,
        _PROMPT.value,
        max_tokens=most if _MAX_TOKENS.value is None else _MAX_TOKENS.value,
        lines=_LINES.value,
        sampling=generation.Sampling(_TEMPERATURE.value, _TOP_K.value),
        seed=_SEED.value,
        write_unknown=_UNKNOWN.value,
    )
    if found.num_unknown:
        logging.warning("words of the prompt that the vocabulary lacks, read as <unk>: %d", found.num_unknown)
    for line in found.text.splitlines():
        command_line.say(line)


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
