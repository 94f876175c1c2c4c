"""Dynamo on Kubernetes: `cluster` connects, `manifests` describes what runs the planner there.

Rules of this file: empty, so that whoever needs the manifests does not load the client.
"""
