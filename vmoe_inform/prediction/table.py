"""Predictions as lines of a table on the terminal, one as each comes."""

from collections.abc import Callable, Sequence

from rich.cells import cell_len, set_cell_size

from vmoe_inform import text
from vmoe_inform.data.images import label_sets
from vmoe_inform.prediction.predict import Prediction, likeliest

_MOST_OF_A_NAME = 40
_MOST_OF_A_CLASS = 20
_SPACE = "  "


class Table:
    """Lines of equal columns: the file, and its likeliest classes with their probabilities."""

    def __init__(self, names: Sequence[str], class_names: Sequence[str], *, top: int, width: int | None = None):
        """Args:
        names: of all files.
        class_names: in the order of the logits.
        top: classes of a file.
        width: of the terminal in characters, into which fewer classes may fit; None: there is room for all.
        """
        titles = [text.printable(label_sets.short_title(name)) for name in class_names]
        self._name_width = min(max(cell_len(text.printable(name)) for name in names), _MOST_OF_A_NAME)
        self._class_width = min(max(map(cell_len, titles)), _MOST_OF_A_CLASS)
        self._titles = [_sized(title, self._class_width) for title in titles]
        each = len(_SPACE) + len(" 100.0 %") + self._class_width
        self.top = top if width is None else min(top, max((width - self._name_width) // each, 1))

    def line(self, prediction: Prediction) -> str:
        """The line of a file that could be read."""
        assert prediction.logits is not None  # its callers ask
        found = likeliest(prediction.logits, self.top)
        cells = [f"{self._titles[label]} {100 * share:5.1f} %" for label, share in found]
        return _SPACE.join([_sized(text.printable(prediction.name), self._name_width, keep_end=True), *cells])


def shown(
    table: Table, *, most: int, say: Callable[[str], None], complain: Callable[[str], None]
) -> Callable[[Prediction], None]:
    """Shows predictions as they come: a line for each file.

    Args:
      table: of the files.
      most: lines.
      say: called with each line.
      complain: called with a line for each file that cannot be read, however many these are.
    """
    lines = 0

    def add(prediction: Prediction) -> None:
        nonlocal lines
        if prediction.problem:
            complain(f"unreadable: {prediction.name}: {prediction.problem}")
            return
        lines += 1
        if lines <= most:
            say(table.line(prediction))

    return add


def _sized(words: str, width: int, *, keep_end: bool = False) -> str:
    """The words in as many columns of a terminal, where some characters take two; with a mark where they are cut."""
    if cell_len(words) <= width:
        return set_cell_size(words, width)
    if keep_end:
        while cell_len(words) > width - 1:
            words = words[1:]
        return set_cell_size(f"…{words}", width)
    return f"{set_cell_size(words, width - 1)}…"
