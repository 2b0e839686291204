"""Arrival processes: read, scale and generate the times at which prompts are offered.

A trace is a list of `Arrival`, ascending in time from zero, whatever file it came from. Nothing of ours is imported.
"""
