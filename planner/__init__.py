"""Deciding and predicting: a policy is a function from a View to a Plan, and nothing more.

`deferral` and `demand` read the view, `milp` states the program, `solvers` solves it, `placement` maps
workers to slots. Nothing here knows Redis, a GPU or a sleep: live and simulated runs plan alike.
"""
