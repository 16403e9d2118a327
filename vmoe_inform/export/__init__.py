"""Exports a trained model for programs that know nothing of this package."""
