"""The accelerator check: what one command finds out about a GPU or TPU in a few minutes.

:mod:`vmoe_inform.performance.accelerator.run` has the parts in order of their worth. Fast paths are compared with their
references, a model is trained, and a run is resumed. A trace is taken, and ways to do the same are timed side by side.
"""
