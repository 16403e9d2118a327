"""What a trained router does: records of a model at work, tables of them, figures, and maps of single images.

    found = analysis.trace(model, variables, images)                      # a record for each MoE layer
    facts = analysis.of_trace(model, found, labels, class_names, name="mine")     # tables, as analysis.json has them
    pictures = analysis.figures.figures(facts)                            # matplotlib figures by name

``python -m vmoe_inform.analyze`` does this for the checkpoints of a run and a whole set of images.
"""

from vmoe_inform.analysis import figures, tables
from vmoe_inform.analysis.document import of_trace
from vmoe_inform.analysis.tracing import trace

__all__ = ["figures", "of_trace", "tables", "trace"]
