"""Faults on a real API server, and what says whether the ceiling held: a proxy, a monitor, planners to kill."""
