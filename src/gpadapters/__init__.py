"""Adapters: the thin edge between gpcore and the world, one module or package each."""
