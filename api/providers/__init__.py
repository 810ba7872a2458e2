"""Asking payment providers for something: one file per provider, and the keys to both."""
