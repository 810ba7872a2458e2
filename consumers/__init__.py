"""NATS in, NATS out, and the clock: messages become commands, ledger events become messages."""
