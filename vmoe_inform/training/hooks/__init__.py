"""Hooks of training, one a file; base.py has the protocol, all.py the list."""
