"""Which secrets a provider can have is known before the first request comes."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import SecretStr

from api.webhook_secrets import BadSecret, Provider, check_secret, generate_secret, hint_of

TOKEN = "q7Xp2Lw9Rt4Zk8Vn3Bm6Hs1Jd5Fg0Cy_"


def _key(size: int) -> str:
    return "whsec_" + b64encode(bytes(range(size))).decode()


GOOD: list[tuple[Provider, str]] = [
    ("stripe", "whsec_" + "a1b2c3d4" * 3),
    ("stripe", "whsec_" + "0123456789abcdef" * 4),
    ("clerk", _key(24)),
    ("clerk", _key(64)),
    ("users", _key(32)),
    ("asaas", TOKEN),
    ("asaas", "$!" * 127 + "."),
    ("asaas", TOKEN + "aaa1234"),
]
BAD: list[tuple[Provider, str, str]] = [
    ("stripe", "", "begin with whsec_"),
    ("stripe", "sk_live_" + "a1b2c3d4" * 4, "begin with whsec_: copy all"),
    ("stripe", "v1,whsec_" + "a1b2c3d4" * 4, "leave out what stands before"),
    ("stripe", "whsec_" + "a" * 23, "at least 24 letters"),
    ("stripe", "whsec_" + "a1b2c3d4" * 3 + "\n", "visible ASCII"),
    ("stripe", "whsec_" + "ä" * 30, "visible ASCII"),
    ("stripe", "whsec_" + "a" * 250, "at most 255"),
    ("clerk", _key(23), "24 to 64 bytes"),
    ("clerk", _key(65), "24 to 64 bytes"),
    ("clerk", _key(32).rstrip("="), "padded"),
    ("clerk", _key(32)[:-2] + "9=", "base64"),  # Bits that base64 ignores.
    ("clerk", _key(24) + "=", "base64"),
    ("users", "whsec_" + "-_" * 20, "base64"),
    ("users", "whsec_not base64 at all, by no means", "spaces"),
    ("asaas", TOKEN[:31], "at least 32"),
    ("asaas", "ab" * 128, "at most 255"),
    ("asaas", TOKEN + " ", "spaces"),
    ("asaas", TOKEN + "aaaa", "more than 3 times"),
    ("asaas", TOKEN + "12345", "run such as"),
    ("asaas", TOKEN + "98765", "run such as"),
    ("asaas", TOKEN + "edcba", "run such as"),
    ("asaas", "$aact_" + TOKEN, "API key"),
]


@pytest.mark.parametrize(("provider", "text"), GOOD)
def test_what_a_provider_gives_is_taken(provider: Provider, text: str) -> None:
    check_secret(provider, SecretStr(text))


@pytest.mark.parametrize(("provider", "text", "why"), BAD)
def test_what_can_never_verify_is_refused_with_the_rule(
    provider: Provider, text: str, why: str
) -> None:
    with pytest.raises(BadSecret, match=why) as error:
        check_secret(provider, SecretStr(text))
    assert not text or text not in str(error.value)


def test_what_is_made_here_is_taken_and_never_the_same() -> None:
    made = [generate_secret() for _ in range(50)]
    for secret in made:
        check_secret("users", secret)
    assert len({secret.get_secret_value() for secret in made}) == 50


def test_a_hint_tells_four_characters_of_the_secret() -> None:
    assert hint_of(SecretStr("whsec_abcdefghijklmnop1234")) == "whsec_…1234"
    assert hint_of(SecretStr(TOKEN)) == "…0Cy_"
