"""The planner over HTTP: the server, its one table of codes, its OpenAPI document, and a client."""
