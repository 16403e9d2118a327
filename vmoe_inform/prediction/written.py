"""Files of predictions: a table as CSV, and arrays as npz. Each is written whole, or not at all."""

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vmoe_inform import storage
from vmoe_inform.data.images import label_sets
from vmoe_inform.prediction.predict import Prediction, likeliest

Add = Callable[[Prediction], None]


@contextlib.contextmanager
def csv_file(path: storage.Path, class_names: Sequence[str], *, top: int) -> Iterator[Add]:
    """A table that grows by a row for each file.

    The columns are ``file``, of each likely class ``label_1``, ``class_1``, ``probability_1``, and ``problem``. Labels
    count the model's classes from 0; ImageNet's classes are in words. A file that could not be read has a problem and
    no classes.

    Args:
      path: to write to.
      class_names: in the order of the logits.
      top: classes of a file.
    """
    titles = list(map(label_sets.title, class_names))
    with storage.replacing(path) as file:
        # A name that is not UTF-8 is written with the codes of its bytes, so that every reader reads the file.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="", write_through=True)
        rows = csv.writer(text, lineterminator="\n")
        columns = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("label", "class", "probability")]
        rows.writerow(["file", *columns, "problem"])

        def add(prediction: Prediction) -> None:
            cells = [""] * len(columns)
            if prediction.logits is not None:
                found = likeliest(prediction.logits, top)
                cells = [cell for label, share in found for cell in (str(label), titles[label], f"{share:.6g}")]
            rows.writerow([prediction.name, *cells, prediction.problem])

        yield add
        text.detach()  # it would close the file


@contextlib.contextmanager
def npz_file(path: storage.Path, class_names: Sequence[str]) -> Iterator[Add]:
    """Arrays of all files that can be read, in memory until the end.

    They are ``files`` [n], ``class_names`` [classes], ``logits`` [n, classes] and, of each MoE layer,
    ``experts/BLOCK`` [n, N, K], the first choice first. Nothing is written where no file can be read.

    Args:
      path: to write to.
      class_names: in the order of the logits.
    """
    found: list[Prediction] = []

    def add(prediction: Prediction) -> None:
        if prediction.logits is not None:
            found.append(prediction)

    yield add
    if found:
        arrays = {
            "files": np.array([one.name.encode("utf-8", "backslashreplace").decode() for one in found]),
            "class_names": np.array(class_names),
            "logits": np.stack([np.asarray(one.logits, np.float32) for one in found]),
        }
        experts = {f"experts/{block}": np.stack([one.experts[block] for one in found]) for block in found[0].experts}
        storage.write_arrays(path, arrays | experts)
