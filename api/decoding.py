"""Bytes of a request to typed records, strictly: what is not understood whole is refused by name.

msgspec reads JSON into the record, but takes the last of repeated names, and texts that no database
can hold. What might have either, or is refused, is read by the standard library first, which is ten
times slower and can say exactly what is wrong. Numbers keep every digit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

from api.fields import NAME_RULE, decode_hook, exact_number
from api.problems import FieldError, InvalidRequest, MalformedRequest, invalid

T = TypeVar("T")
PARAMETERS_MAX: Final = 100
CONTAINERS: Final = frozenset({dict, list})
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_untyped = msgspec.json.Decoder()
_PLACE = re.compile(r" - at (?:`key` in )?`([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class _Constant:
    """`NaN`, `Infinity` or `-Infinity`, which are not JSON but are often sent."""

    def __init__(self, text: str) -> None:
        self.text = text


class Decoder(Generic[T]):
    """Decodes the body of a request into one kind of record."""

    def __init__(self, kind: Any, *, check_texts: bool = True) -> None:
        """Decode into `kind`. Without `check_texts`, whoever decodes the parts checks theirs."""
        self._check_texts = check_texts
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(
            kind, dec_hook=decode_hook, float_hook=exact_number
        )

    def decode(self, body: bytes) -> T:
        """Return the record. Raises MalformedRequest, or InvalidRequest naming the field."""
        if is_plain(body):
            try:
                return self._decoder.decode(body)
            except UNREADABLE:
                pass  # What is wrong, and what of it is told first, is found out below.
        check_syntax(body, check_texts=self._check_texts)
        return self.decode_checked(body)

    def decode_checked(self, body: bytes | msgspec.Raw) -> T:
        """Return the record of a body whose syntax has been checked; raises InvalidRequest."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest(field_error(str(error))) from None
        except (msgspec.DecodeError, RecursionError):
            raise MalformedRequest from None


def is_plain(body: bytes) -> bool:
    """Tell whether `body` is surely JSON that `check_syntax` has nothing against.

    Every name ends in `":` where no space stands before a colon. So there are at least as many of
    these as members in the text, and no more members are left where a name is repeated: if there
    are as many of one as of the other, none is, and no text holds that mark either.
    """
    if b"\\u" in body or b" :" in body or b"\t:" in body or b"\n:" in body or b"\r:" in body:
        return False
    try:
        return _count_members(_untyped.decode(body)) == body.count(b'":')
    except UNREADABLE:
        return False


def _count_members(value: Any) -> int:
    """Count the members of all objects in `value`."""
    if type(value) is dict:
        return len(value) + sum(
            [_count_members(part) for part in value.values() if type(part) in CONTAINERS]
        )
    if type(value) is list:
        return sum([_count_members(part) for part in value if type(part) in CONTAINERS])
    return 0


def check_syntax(body: bytes, *, check_texts: bool = True) -> None:
    """Refuse what is not strict JSON, as MalformedRequest; and strange values, as InvalidRequest.

    Strange are numbers that are none (NaN), and texts that no database can hold (NUL, half a
    character).
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("The body is not UTF-8.") from None
    strange: list[_Constant] = []

    def constant(name: str) -> _Constant:
        strange.append(_Constant(name))
        return strange[-1]

    try:
        value = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_float=str,
            parse_int=str,
            parse_constant=constant,
        )
        if strange or (check_texts and "\\u" in text):
            _refuse_strange(value, check_texts=check_texts)
    except json.JSONDecodeError as error:
        what = f"The body is not JSON: {error.msg} at byte {len(text[: error.pos].encode())}."
        raise MalformedRequest(what) from None
    except RecursionError:
        raise MalformedRequest("The body is nested too deeply.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise MalformedRequest(f"The name {repeated!a} occurs twice in one object.")
    return members


def _refuse_strange(value: Any, *, check_texts: bool) -> None:
    for field, scalar in _scalars("", value):
        if isinstance(scalar, _Constant):
            raise invalid(field or "body", "invalid", "must be a finite number")
        if check_texts and isinstance(scalar, str) and not is_storable(scalar):
            place = field.encode("ascii", "backslashreplace").decode()
            raise invalid(place or "body", "invalid", "must not hold NUL or half a character")


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold `text`: no NUL, no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _scalars(field: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every scalar and every name, with the path to it."""
    todo = [(field, value)]
    while todo:
        field, value = todo.pop()
        if isinstance(value, dict):
            for name, member in value.items():
                path = f"{field}.{name}" if field else name
                yield path, name
                todo.append((path, member))
        elif isinstance(value, list):
            todo.extend((f"{field}[{index}]", item) for index, item in enumerate(value))
        else:
            yield field, value


def decode_query(raw: bytes, kind: type[T]) -> T:
    """Return the query parameters as a record. Raises InvalidRequest naming the parameter."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(raw),
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError:
        raise invalid("query", "invalid", "must be name=value pairs in UTF-8") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in parameters:
            raise invalid(name, "repeated", "must be given once")
        if not is_storable(name) or not is_storable(value):
            raise invalid(ascii(name)[1:-1], "invalid", "must not hold NUL")
        parameters[name] = value
    return convert_parameters(parameters, kind)


def convert_parameters(parameters: Mapping[str, str], kind: type[T]) -> T:
    """Return texts as a record. Raises InvalidRequest naming the parameter."""
    try:
        record = msgspec.convert(parameters, kind, strict=False, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        raise InvalidRequest(field_error(str(error))) from None
    for field in msgspec.structs.fields(kind):  # type: ignore[arg-type] # Always a Struct.
        # msgspec takes the text `null` for None; a filter must never be dropped like that.
        if field.encode_name in parameters and getattr(record, field.name) is None:
            raise invalid(field.encode_name, "invalid", "must not be null")
    return record


def field_error(message: str) -> FieldError:
    """Turn a message of msgspec into the field, a code and a rule in our words."""
    place = _PLACE.search(message)
    path = place.group(1).removeprefix("$").removeprefix(".") if place else ""
    rule = message[: place.start()] if place else message
    for pattern, code, words in (
        (_MISSING, "required", "must be given"),
        (_UNKNOWN, "unknown", "is not known here"),
    ):
        match = pattern.fullmatch(rule)
        if match:
            name = match.group(1)
            return FieldError(f"{path}.{name}" if path else name, code, words)
    if "matching regex" in rule:
        rule = NAME_RULE if "A-Za-z0-9" in rule else "must be 1 to 255 visible ASCII characters"
    elif rule.startswith("Expected "):
        rule = "must be " + rule.removeprefix("Expected ").replace("`", "")
    elif not rule.startswith("must "):
        rule = rule[:1].lower() + rule[1:]
        rule = f"is refused: {rule}".replace("`", "")
    return FieldError(path or "body", "invalid", rule)
