"""Secrets are checked before they are stored: a weak one lets anybody in, a misspelt one nobody."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr

from api.webhook_secrets import BadSecret, check_secret
from ledger.domain.facts import Provider
from tests.api.webhooks.senders import OTHERS, PROVIDERS, SECRETS


def _whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(100, 100 + size))).decode()


RIGHT = [
    *SECRETS.items(),
    *OTHERS.items(),
    ("stripe", "whsec_" + "a1" * 12),
    ("stripe", "whsec_" + "0123456789abcdef" * 4),
    ("clerk", _whsec(24)),
    ("users", _whsec(25)),
    ("users", _whsec(32)),
    ("users", _whsec(64)),
    ("asaas", "ab" * 16),
    ("asaas", "ab" * 127 + "a"),
    ("asaas", "1234-abcd-WXYZ-4321-dcba-9876-/0123"),
    ("asaas", "aaab" * 8),
]
WRONG = [
    *[(provider, "") for provider in PROVIDERS],
    *[(provider, " " + secret) for provider, secret in SECRETS.items()],
    *[(provider, secret + "\n") for provider, secret in SECRETS.items()],
    *[(provider, secret + "é") for provider, secret in SECRETS.items()],
    *[(provider, "v1," + SECRETS[provider]) for provider in ("stripe", "clerk", "users")],
    ("stripe", "whsec_" + "a" * 23),
    ("stripe", "whsec_" + "a" * 256),
    ("stripe", "sk_live_" + "a1" * 20),
    ("stripe", "a1" * 20),
    ("clerk", "whsec_YQ=="),
    ("clerk", _whsec(23)),
    ("users", _whsec(65)),
    ("users", "whsec_" + "not base64 at all, but long enough for a key"),
    ("users", "whsec_" + "a-b_" * 12),
    ("users", _whsec(32)[:-1]),  # Without its padding.
    ("users", _whsec(32) + "="),
    ("users", _whsec(25)[:-3] + "B=="),  # Its last bits say nothing, and are not 0.
    ("users", _whsec(32).removeprefix("whsec_")),
    ("users", _whsec(32).replace("whsec_", "whsk_")),
    ("users", "whsec_" + _whsec(32)),
    ("asaas", "ab" * 15 + "a"),
    ("asaas", "ab" * 128),
    ("asaas", "ab" * 16 + " ab"),
    ("asaas", "ab" * 16 + "aaaa"),
    ("asaas", "ab" * 16 + "12345"),
    ("asaas", "vwxyz" + "ab" * 16),
    ("asaas", "$aact_prod_" + "a1" * 20),
    ("asaas", "aact_hmlg_" + "a1" * 20),
]


@pytest.mark.parametrize(("provider", "secret"), RIGHT)
def test_a_right_secret_is_taken(provider: Provider, secret: str) -> None:
    check_secret(provider, SecretStr(secret))


@pytest.mark.parametrize(("provider", "secret"), WRONG)
def test_a_wrong_secret_is_refused_by_a_rule_that_does_not_tell_it(
    provider: Provider, secret: str
) -> None:
    with pytest.raises(BadSecret, match=r"^must ") as refused:
        check_secret(provider, SecretStr(secret))
    assert not secret.strip() or secret.strip() not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
