"""Deciding and predicting: a policy is a function from a View to a Plan, and nothing more.

`deferral` and `demand` read the view, `fleet` and `milp` hold the numbers of the program, `formulation` writes it
down, `solvers` solves it (`engines`, `search`), `spares` staffs the slots left over, `placement` maps workers to
slots; `sharing` divides slots among cascades. Nothing here knows Redis, a GPU or a sleep: live and simulated runs
plan alike.
"""
