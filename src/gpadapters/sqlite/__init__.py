"""A file in place of an API server: the ledger and the lease of planners on one machine, in one SQLite database.

The file must be on a local disk: SQLite's locks, and with them every promise made here, fail on network file systems.
"""
