"""What the secret of a webhook endpoint looks like, by provider; a wrong one is refused at once.

Whoever puts a secret that could never verify anything learns so now, and not from requests that
are all refused.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Final

from pydantic import SecretStr

from ledger.domain.facts import Provider

PREFIX: Final = "whsec_"
LENGTH_MAX: Final = 255
STRIPE_CHARS_MIN: Final = 24
KEY_BYTES_MIN: Final = 24
KEY_BYTES_MAX: Final = 64
GENERATED_BYTES: Final = 32
TOKEN_CHARS_MIN: Final = 32
REPEATED_MAX: Final = 3
RUN_MAX: Final = 4
HINT_CHARS: Final = 4
_VISIBLE = re.compile(r"[!-~]*")
_ASAAS_API_KEY = re.compile(r"\$?aact_")
_STRIPE = re.compile(r"[A-Za-z0-9+/=_-]*")
_REPEATED = re.compile(rf"(.)\1{{{REPEATED_MAX}}}")


class BadSecret(ValueError):
    """No such secret can be the provider's; the text is the rule that it breaks, and no more."""


def check_secret(provider: Provider, secret: SecretStr) -> None:
    """Raise BadSecret unless `secret` can be one of the provider's."""
    rule = broken_rule(provider, secret.get_secret_value())
    if rule is not None:
        raise BadSecret(rule)


def broken_rule(provider: Provider, text: str) -> str | None:
    """Return the rule that a secret of this provider breaks, if it breaks any."""
    if len(text) > LENGTH_MAX or _VISIBLE.fullmatch(text) is None:
        return f"must be at most {LENGTH_MAX} visible ASCII characters, without spaces"
    if provider == "asaas":
        return _broken_by_token(text)
    if not text.startswith(PREFIX):
        what = "leave out what stands before it" if PREFIX in text else "copy all of it"
        return f"must begin with {PREFIX}: {what}"
    rest = text.removeprefix(PREFIX)
    if provider != "stripe":
        size = f"{KEY_BYTES_MIN} to {KEY_BYTES_MAX}"
        return (
            None if _is_key(rest) else f"must be {PREFIX} and the base64, padded, of {size} bytes"
        )
    if len(rest) < STRIPE_CHARS_MIN or _STRIPE.fullmatch(rest) is None:
        return f"must have at least {STRIPE_CHARS_MIN} letters, digits or + / = _ - after {PREFIX}"
    return None


def generate_secret() -> SecretStr:
    """Return a new secret for an endpoint of `users`, as Standard Webhooks has them."""
    return SecretStr(PREFIX + b64encode(secrets.token_bytes(GENERATED_BYTES)).decode())


def hint_of(secret: SecretStr) -> str:
    """Return how a secret begins, if that is the same for all, and how it ends."""
    text = secret.get_secret_value()
    return f"{PREFIX if text.startswith(PREFIX) else ''}…{text[-HINT_CHARS:]}"


def _is_key(encoded: str) -> bool:
    try:
        key = b64decode(encoded, validate=True)
    except ValueError:
        return False
    # Encoded anew, because decoding ignores bits and padding that others do not ignore.
    canonical = b64encode(key).decode() == encoded
    return canonical and KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX


def _broken_by_token(text: str) -> str | None:
    if len(text) < TOKEN_CHARS_MIN:
        return f"must have at least {TOKEN_CHARS_MIN} characters"
    if _ASAAS_API_KEY.match(text):
        return "must not be an API key of Asaas"
    if _REPEATED.search(text):
        return f"must not have a character more than {REPEATED_MAX} times in a row"
    if _longest_run(text) > RUN_MAX:
        return "must not have a run such as 12345 or edcba"
    return None


def _longest_run(text: str) -> int:
    """Return how many letters or digits follow on one another at most, up or down."""
    longest = length = 1
    direction = 0
    for before, after in pairwise(text):
        step = ord(after) - ord(before)
        if abs(step) == 1 and before.isalnum() and after.isalnum():
            length = length + 1 if step == direction else 2
            direction = step
        else:
            length, direction = 1, 0
        longest = max(longest, length)
    return longest
