"""Analysis of trained routers: records of a model at work, their statistics, figures, and maps of single images.

    run = analysis.load("runs/attention")                        # the model of a run's newest checkpoint
    sample = analysis.sample(run, 24, "c:fog:3")                 # test images, here in fog
    trace = analysis.trace(run, sample, graphs=True)             # a record for each MoE layer
    analysis.maps.routing_map(sample.images[0], trace)           # patches in the colours of their experts

    runs, images = analysis.load_inputs("runs/attention")       # its newest checkpoints, its test images
    found, views = analysis.analyze(runs, images)                # tables of all test images, as analysis.json has them
    analysis.figures(found)                                      # matplotlib figures by name
    analysis.page_of(views)                                      # an HTML page to look at single images or words

``python -m vmoe_inform.analyze`` writes all of these. :mod:`~vmoe_inform.analysis.images.tracing` takes any model and
any images.
"""

from vmoe_inform.analysis.api import analyze
from vmoe_inform.analysis.draw import maps
from vmoe_inform.analysis.draw.catalogue import figures
from vmoe_inform.analysis.draw.comparison import comparison_figure
from vmoe_inform.analysis.images.samples import Sample, of_trace, sample, trace, view
from vmoe_inform.analysis.inputs import AnalysedRuns, load_inputs
from vmoe_inform.analysis.page.catalogue import page_of, routing_frame
from vmoe_inform.analysis.page.render import routing_page
from vmoe_inform.analysis.page.words import word_page
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.analysis.stored import read
from vmoe_inform.runs.run import load

__all__ = [
    "AnalysedRuns",
    "Analysis",
    "Sample",
    "analyze",
    "comparison_figure",
    "figures",
    "load",
    "load_inputs",
    "maps",
    "of_trace",
    "page_of",
    "read",
    "routing_frame",
    "routing_page",
    "sample",
    "trace",
    "view",
    "word_page",
]
