"""What all rooms must agree on: keys, messages, rules, accounting, and every Redis command.

It imports nothing of ours, so that a service, the simulator and a notebook can share it freely.
Start with `messages.py` (the data), `cascade.py` (the rules) and `broker.py` (the commands).
"""
