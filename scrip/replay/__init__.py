"""Replay of a trace against a running Scrip: reserve, generate, capture, and then check every sum.

It is a client like any other: HTTP and NATS are all it uses, and it works out every price itself.
"""
