"""Evaluation suites, one file each: importing a file registers its suite.

A suite of your own is a module that calls :func:`register`, as those in this folder do. Importing it registers it.
``--suites``, tables, report, studies and ``data.check`` take everything about a suite from there.
"""

import importlib

from vmoe_inform.evaluation.suites.base import (
    AttackedPredictions,
    Features,
    NotAvailable,
    Predictions,
    RecordSet,
    Suite,
    TrainedModel,
    test_split,
)
from vmoe_inform.evaluation.suites.registry import (
    SuiteKind,
    check_choice,
    check_names,
    chosen,
    details,
    kind,
    load,
    names,
    register,
)

__all__ = [
    "AttackedPredictions",
    "Features",
    "NotAvailable",
    "Predictions",
    "RecordSet",
    "Suite",
    "SuiteKind",
    "TrainedModel",
    "check_choice",
    "check_names",
    "chosen",
    "details",
    "kind",
    "load",
    "names",
    "register",
    "test_split",
]

# In the order in which they are shown.
for _name in (
    *("clean", "real", "v2", "c", "r", "a", "sketch", "o", "fgsm", "pgd", "linear", "fewshot"),
    *("perplexity", "word_swap", "classification"),
):
    importlib.import_module(f"{__name__}.{_name}")
