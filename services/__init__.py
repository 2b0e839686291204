"""Thin shells around the rules, one process each: `python -m services.<name> --help`.

publisher, worker, control (the planner service), agent (drives supervisor on a node), keeper.
Services never import each other: they talk through Redis.
"""
