"""Faults that are really injected while a trace runs, and whether every prompt is still answered once.

`faults.py` is the table: name -> what is done, for how long, and what must hold.
"""
