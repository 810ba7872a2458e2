"""Webhooks in, one file per provider: verify the bytes, say what they are, hand it on."""
