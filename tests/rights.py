"""Who may do what in Redis: a table of one line an action."""

# ruff: noqa: E501
from __future__ import annotations

from typing import Final

from deploy.acl import ROLES

KEY = "{d}:"
EVERYBODY = frozenset(ROLES)
DOORS = frozenset({"publisher", "gateway"})
DOORS_AND_HANDS = DOORS | {"worker", "agent", "keeper"}

# Action, the command, and the roles that may. Every key is one that nothing else uses, or of a kind that refuses
# the command; what counts is whether the server answers NOPERM.
MATRIX: Final[list[tuple[str, list[str], frozenset[str]]]] = [
    ("read the plan", ["HGETALL", f"{KEY}plan"], EVERYBODY),
    ("read the totals", ["HGETALL", f"{KEY}totals"], EVERYBODY),
    ("read outcomes", ["XRANGE", f"{KEY}done", "-", "+"], EVERYBODY),
    ("read waiting prompts", ["XRANGE", f"{KEY}stage:light:1", "-", "+"], EVERYBODY),
    ("read a prompt's record", ["HGETALL", f"{KEY}prompt:x"], EVERYBODY - {"control"}),
    ("read a picture", ["GET", f"{KEY}image:x:light"], frozenset({"worker", "keeper", "reader", "gateway"})),
    ("follow events", ["XREAD", "STREAMS", f"{KEY}events", "$"], frozenset({"gateway"})),
    ("give an order", ["HSET", f"{KEY}orders", "x", "x"], frozenset({"gateway"})),
    ("read a worker's standing", ["HGETALL", f"{KEY}worker:x"], EVERYBODY - {"publisher"}),
    ("offer a prompt", ["XADD", f"{KEY}stage:light:1", "*", "prompt", "x"], DOORS_AND_HANDS),
    ("claim a prompt", ["XREADGROUP", "GROUP", "workers", "x", "STREAMS", f"{KEY}stage:light:1", ">"], frozenset({"worker"})),
    ("take a prompt over", ["XCLAIM", f"{KEY}stage:light:1", "workers", "x", "0", "0-1"], DOORS_AND_HANDS - DOORS),
    ("delete a prompt", ["XDEL", f"{KEY}stage:light:1", "0-1"], DOORS_AND_HANDS),
    ("delete a queue", ["DEL", f"{KEY}stage:light:9"], frozenset({"worker", "agent", "keeper"})),
    ("write an outcome", ["XADD", f"{KEY}done", "*", "id", "x"], DOORS_AND_HANDS),
    ("write a picture", ["SET", f"{KEY}image:x:light", "x"], frozenset({"worker"})),
    ("delete a picture", ["DEL", f"{KEY}image:x:light"], frozenset({"worker", "keeper"})),
    ("write a plan", ["HSET", f"{KEY}plan", "x", "x"], frozenset({"control"})),
    ("delete the plan", ["DEL", f"{KEY}plan"], frozenset({"control"})),
    ("write a plan's history", ["XADD", f"{KEY}plans", "*", "x", "x"], frozenset({"control"})),
    ("lead as control", ["SET", f"{KEY}leader:control", "x"], frozenset({"control"})),
    ("lead as keeper", ["SET", f"{KEY}leader:keeper", "x"], frozenset({"keeper"})),
    ("take a slot", ["SET", f"{KEY}slot:n:9", "x"], frozenset({"worker"})),
    ("free a slot", ["DEL", f"{KEY}slot:n:9"], frozenset({"worker", "agent", "keeper"})),
    ("speak for a node", ["HSET", f"{KEY}node:n", "x", "x"], frozenset({"agent"})),
    ("speak for a worker", ["HSET", f"{KEY}worker:x", "x", "x"], frozenset({"worker", "agent", "keeper"})),
    ("lower a GPU's ceiling", ["SET", f"{KEY}ceiling:m:g", "1"], frozenset({"worker"})),
    ("clear the totals", ["DEL", f"{KEY}totals"], frozenset({"worker", "agent", "keeper"})),
    ("clear the dead letters", ["XTRIM", f"{KEY}dead", "MAXLEN", "0"], frozenset()),
    ("run a script of its own that writes a plan", ["EVAL", f"return redis.call('HSET', '{KEY}plan', 'x', 'x')", "1", f"{KEY}plan"], frozenset({"control"})),
    ("touch another deployment", ["HGETALL", "{other}:plan"], frozenset()),
    ("list keys", ["KEYS", "*"], frozenset()),
    ("scan keys", ["SCAN", "0"], frozenset()),
    ("flush", ["FLUSHALL"], frozenset()),
    ("change the server's settings", ["CONFIG", "SET", "maxmemory", "1"], frozenset()),
    ("read the server's settings", ["CONFIG", "GET", "requirepass"], frozenset()),
    ("change access", ["ACL", "SETUSER", "x"], frozenset()),
    ("read access", ["ACL", "LIST"], frozenset()),
    ("listen to everything", ["MONITOR"], frozenset()),
    ("shut the server down", ["SHUTDOWN", "NOSAVE"], frozenset()),
    ("make it a replica", ["REPLICAOF", "127.0.0.1", "1"], frozenset()),
    ("debug", ["DEBUG", "SLEEP", "0"], frozenset()),
    ("kill scripts", ["SCRIPT", "KILL"], frozenset()),
    ("drop scripts", ["SCRIPT", "FLUSH"], frozenset()),
    ("load a module", ["MODULE", "LIST"], frozenset()),
    ("cut others off", ["CLIENT", "KILL", "ID", "0"], frozenset()),
    ("copy the data away", ["MIGRATE", "127.0.0.1", "1", f"{KEY}plan", "0", "1"], frozenset()),
    ("publish to channels", ["PUBLISH", "x", "x"], frozenset()),
]  # fmt: skip
