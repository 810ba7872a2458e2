"""Secrets at rest: sealed with AES-256-GCM, each for one place, where alone it can be opened.

The keys are the operator's. The first one seals, all of them open; see
docs/decisions/0014-secrets-at-rest.md.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from pydantic import SecretStr

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
PURPOSE: Final = "scrip.webhook-secret.v1"
"""Stands in what a secret is bound to, so that nothing sealed for another purpose opens as one."""
SYNTAX: Final = "must be keyid:base64 of 32 bytes, or several of these with commas between"
_SEPARATORS = re.compile(r"[,\s]+")
_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class CannotOpen(Exception):
    """Its key is not among ours, or it was sealed for another place, or somebody changed it."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a secret belongs."""

    tenant: str
    provider: str
    endpoint: str
    secret: str
    purpose: str = PURPOSE


class Sealed(Struct, frozen=True, kw_only=True):
    """A secret as it is stored: under which key, the nonce of its own, and the ciphertext."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class SecretKeys:
    """The keys that seal and open secrets. What they are is never shown, only their ids."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Seal with the first of `keys`, which have 32 bytes each, and open with all of them."""
        assert keys
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.newest = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the keys that a setting names. Raises ValueError, which shows nothing of it."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(_SEPARATORS.split(text.strip()), start=1):
            key_id, _, encoded = entry.partition(":")
            if _KEY_ID.fullmatch(key_id) is None or (key := _key(encoded)) is None:
                raise ValueError(f"{SYNTAX}; number {number} is not")
            if key_id in keys:
                raise ValueError(f"must name each key once; number {number} has the id of another")
            keys[key_id] = key
        return cls(keys)

    def __repr__(self) -> str:
        """Name the keys."""
        return f"<SecretKeys {', '.join(self._ciphers)}>"

    def seal(self, place: Place, secret: SecretStr) -> Sealed:
        """Return `secret`, to be opened at `place` alone."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = self._ciphers[self.newest].encrypt(
            nonce, secret.get_secret_value().encode(), _bound_to(place, self.newest)
        )
        return Sealed(key_id=self.newest, nonce=nonce, ciphertext=ciphertext)

    def open(self, place: Place, sealed: Sealed) -> SecretStr:
        """Return what was sealed for `place`. Raises CannotOpen."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise CannotOpen
        bound_to = _bound_to(place, sealed.key_id)
        try:
            return SecretStr(cipher.decrypt(sealed.nonce, sealed.ciphertext, bound_to).decode())
        except InvalidTag:
            raise CannotOpen from None


def new_key(key_id: str) -> str:
    """Return a key made now, as SCRIP_SECRETS_KEYS takes it."""
    return f"{key_id}:{b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def _key(encoded: str) -> bytes | None:
    try:
        key = b64decode(encoded, validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


def _bound_to(place: Place, key_id: str) -> bytes:
    # As JSON, so that no two places give the same bytes, wherever their parts begin and end.
    return msgspec.json.encode(
        (place.purpose, place.tenant, place.provider, place.endpoint, place.secret, key_id)
    )
