"""Images, supervisor and Redis configuration, and the runner of demo and experiments.

The only room that may import all others: it puts the pieces together on one machine.
"""
