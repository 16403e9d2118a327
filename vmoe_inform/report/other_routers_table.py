"""The terminal's tables of a trained model with other routers."""

from collections.abc import Sequence

import rich.console
import rich.table
import rich.text

from vmoe_inform import text
from vmoe_inform.evaluation.rerouting import Rerouted
from vmoe_inform.evaluation.results import Results
from vmoe_inform.report.other_routers import RouterRow, metric_rows, names_of


def render_tables(name: str, results: Results, rerouted: Sequence[Rerouted]) -> rich.console.Group:
    """Headlines and negative log-likelihoods for the terminal, a table each; print them with a rich Console.

    Args:
      name: of the run.
      results: as it was trained.
      rerouted: with other routers, at least one.
    """
    names = names_of(rerouted)
    columns = (f"  {names.heading}", "score", "change", "gained/lost", "p")
    metrics = [each for each in metric_rows(results, rerouted) if each.is_headline or each.is_likelihood]
    cells = [[_cells(row) for row in metric.rows] for metric in metrics]
    widths = [max(map(len, column)) for column in zip(columns, *(row for rows in cells for row in rows), strict=True)]
    widths[0] = min(widths[0], _WIDEST_NAME)
    title = f"{name} with other routers, not trained{f': {names.shared}' if names.shared else ''}"
    parts: list[rich.console.RenderableType] = ["", _words(title, "bold")]
    for metric, rows in zip(metrics, cells, strict=True):
        heading = ", ".join(filter(None, (metric.title, metric.metric, metric.count)))
        table = rich.table.Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=metric is metrics[0])
        for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
            table.add_column(column, justify="right" if number else "left", width=width, overflow="fold")
        for row in rows:
            table.add_row(*map(_words, row))
        parts += ["", _words(heading, "italic"), table]
    return rich.console.Group(*parts, "", _words(_CAPTION))


_WIDEST_NAME = 26  # of a router, so that the other columns have room in 80 characters
_CAPTION = (
    "change: to the router as trained, on the same records, in brackets the 95 % interval; gained/lost: records that "
    "only this, or only the trained router gets right; p: McNemar's exact test, else Student's t"
)


def _cells(row: RouterRow) -> tuple[str, ...]:
    return tuple(map(text.printable, (f"  {row.router}", row.score, row.change, row.records, row.p_value)))


def _words(line: str, style: str = "") -> rich.text.Text:
    return rich.text.Text(text.printable(line), style=style)
