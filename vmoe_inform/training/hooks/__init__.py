"""What a run does besides its steps, one hook a file; base.py has the protocol, all.py the list."""
