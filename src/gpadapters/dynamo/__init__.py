"""Dynamo's own runtime as a transport: the planner that stock planners ask, and a client for planners of one's own.

`runtime` joins Dynamo, `messages` (pure) knows what is said, `server` serves a planner and `client` asks one. Only the
runnable modules know the command line, and all that they do is to call it.
"""
