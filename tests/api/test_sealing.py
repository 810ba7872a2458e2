"""A sealed secret opens at its place and nowhere else, and not if a bit of it was changed."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pydantic import SecretStr

from api.sealing import CannotOpen, Place, Sealed, SecretKeys, new_key

HERE = Place(tenant="a", provider="stripe", endpoint="whe_1", secret="whs_1")
SECRET = SecretStr("whsec_canary_canary_canary_canary")
KEYS = SecretKeys.parse(new_key("k1"))
SEALED = KEYS.seal(HERE, SECRET)
ZEROS = b64encode(bytes(32)).decode()


def test_it_opens_where_it_belongs() -> None:
    assert KEYS.open(HERE, SEALED) == SECRET


@pytest.mark.parametrize("part", Place.__struct_fields__)
def test_it_opens_nowhere_else(part: str) -> None:
    with pytest.raises(CannotOpen):
        KEYS.open(structs.replace(HERE, **{part: "b"}), SEALED)


def test_where_one_part_ends_and_the_next_begins_is_not_open_to_question() -> None:
    place = Place(tenant='a","stripe', provider="x", endpoint="whe_1", secret="whs_1")
    other = Place(tenant="a", provider='stripe","x', endpoint="whe_1", secret="whs_1")
    with pytest.raises(CannotOpen):
        KEYS.open(other, KEYS.seal(place, SECRET))


@pytest.mark.parametrize("field", ["nonce", "ciphertext"])
def test_any_flipped_bit_is_noticed(field: str) -> None:
    whole: bytes = getattr(SEALED, field)
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CannotOpen):
            KEYS.open(HERE, structs.replace(SEALED, **{field: bytes(flipped)}))


def test_the_same_key_under_another_id_does_not_open_it() -> None:
    both = SecretKeys.parse(f"k1:{ZEROS},k2:{ZEROS}")
    with pytest.raises(CannotOpen):
        both.open(HERE, structs.replace(both.seal(HERE, SECRET), key_id="k2"))


def test_the_first_key_seals_and_all_of_them_open() -> None:
    old, new = new_key("old"), new_key("new")
    by_old = SecretKeys.parse(old).seal(HERE, SECRET)
    both = SecretKeys.parse(f" {new} , {old}\n")
    assert both.seal(HERE, SECRET).key_id == "new"
    assert both.open(HERE, by_old) == SECRET
    with pytest.raises(CannotOpen):
        SecretKeys.parse(new).open(HERE, by_old)


def test_each_has_a_nonce_of_its_own() -> None:
    sealed = [KEYS.seal(HERE, SECRET) for _ in range(200)]
    assert len({one.nonce for one in sealed}) == len({one.ciphertext for one in sealed}) == 200
    assert {len(one.nonce) for one in sealed} == {12}


@given(st.text(min_size=1, max_size=255))
def test_whatever_the_text_it_comes_back(text: str) -> None:
    assert KEYS.open(HERE, KEYS.seal(HERE, SecretStr(text))).get_secret_value() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hush",
        f":{ZEROS}",
        f"a b:{ZEROS}",
        "k:hush",
        f"k:{ZEROS[:-1]}",
        f"k:{b64encode(bytes(16)).decode()}",
        f"k:{b64encode(bytes(33)).decode()}",
        f"k:{ZEROS},k:{ZEROS}",
        f"k:{ZEROS},hush",
    ],
)
def test_keys_that_are_none_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        SecretKeys.parse(text)
    assert "hush" not in str(error.value)
    assert ZEROS[:8] not in str(error.value)


def test_nothing_shows_what_it_holds() -> None:
    text = new_key("k9")
    keys = SecretKeys.parse(text)
    assert repr(keys) == "<SecretKeys k9>"
    shown = f"{keys} {keys!r} {vars(keys)} {SEALED} {SEALED!r} {KEYS.open(HERE, SEALED)!r}"
    assert text.partition(":")[2] not in shown
    assert "canary" not in shown
    assert isinstance(SEALED, Sealed)
