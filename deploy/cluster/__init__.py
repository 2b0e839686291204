"""A head and GPU nodes on one machine, each with an address of its own, running what the compose files say.

`network.py` lays the cables, `composefile.py` and `image.py` read what is to run, `inside.py` makes a container of
namespaces, `containers.py` and `project.py` run them as an engine would. Needs root, and nothing else.
"""
