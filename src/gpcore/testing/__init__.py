"""The public kit for tests of planners, policies and adapters; what needs Hypothesis is in its own modules."""
