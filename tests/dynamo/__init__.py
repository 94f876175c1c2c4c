"""The tests that need Dynamo itself; `nox -s dynamo` runs them and `nox -s tests` does not."""
