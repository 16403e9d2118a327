"""Runs: trained models, their folders and their checkpoints. :mod:`vmoe_inform.runs.run` loads one."""
