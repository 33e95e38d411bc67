"""Arguments and results as JSON text, as the database holds them; refuses values that cannot be stored so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, Final, cast

__all__ = [
    "MAX_DATA_BYTES",
    "as_arguments",
    "dump_arguments",
    "dump_result",
    "load_arguments",
    "read_json",
    "storable_text",
]

MAX_DATA_BYTES: Final = 32 * 1024 * 1024
"""The largest JSON, in bytes, of one job's arguments or of its result. Larger values belong in a store of their own."""

_encoder: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))  # ASCII only: no encoding can refuse it
_scan: Final[Callable[[str, int], tuple[Any, int]]] = vars(json.JSONDecoder())["scan_once"]
MAX_DEPTH: Final = 200
"""How deeply values may be nested. A reader, perhaps deep within other calls, must be able to decode them."""
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_CONTAINERS: Final = (dict, list, tuple)
_ENCODING_ERRORS: Final = (TypeError, ValueError, RecursionError)


def _fast_encode() -> Callable[[Any], str]:
    """Return `_encoder.encode` with its inner encoder made once instead of for each call: half the time."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encoder.encode
    # Without `markers`, the encoder's record of what it is inside of, which threads would share: a value that contains
    # itself ends in a RecursionError.
    inner = make(None, _encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)

    def encode(value: Any) -> str:
        try:
            return "".join(inner(value, 0))
        except RecursionError:
            return _encoder.encode(value)  # raises an error that says what is wrong with the value

    return encode


_encode: Final = _fast_encode()


def _encoded(value: Any, text_keyed: int = 0) -> str:
    """Return JSON text. Raises TypeError, ValueError or RecursionError.

    Args:
        value: The value to encode.
        text_keyed: How many of its objects are known to have text keys. Mostly that is all of them, and none needs to
            be looked at.
    """
    text = _encode(value)
    objects = text.count("{")
    if objects > text_keyed:
        _check_keys(value)
    if text.count("[") + objects > MAX_DEPTH:
        brackets = re.sub(r"[^\[\]{}]", "", _STRING.sub("", text))
        if max(accumulate(map(_STEP.__getitem__, brackets.encode()))) > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return text


def _check_keys(value: Any) -> None:
    """Refuse keys that are not text: JSON has no others, and the encoder turns 1, None and True into text."""
    left: list[object] = [value]
    while left:
        items = left.pop()
        if isinstance(items, dict):
            keyed = cast("dict[object, object]", items)
            for key in keyed:
                if not isinstance(key, str):
                    raise TypeError(f"the key {key!r} of a dict is not a string")
            left += [item for item in keyed.values() if isinstance(item, _CONTAINERS)]
        elif isinstance(items, list | tuple):
            left += [item for item in cast("Iterable[object]", items) if isinstance(item, _CONTAINERS)]


def dump_arguments(arguments: Mapping[str, Any]) -> str:
    """Return a job's keyword arguments as JSON text. Tuples become lists.

    Raises:
        TypeError: An argument has no JSON form (NaN, infinity, a key that is not a string, nesting that is too deep).
            The message names it.
        ValueError: The text is larger than `MAX_DATA_BYTES`.
    """
    try:
        text = _encoded(arguments, text_keyed=1)
    except _ENCODING_ERRORS:
        for name, value in arguments.items():
            try:
                _encoded(value)
            except _ENCODING_ERRORS as error:
                raise TypeError(f"argument {name!r} cannot be stored as JSON: {error}") from None
        raise
    if len(text) > MAX_DATA_BYTES:
        raise ValueError(
            f"the arguments take {len(text):,} bytes of JSON, more than {MAX_DATA_BYTES:,}: "
            "store them elsewhere and enqueue a reference"
        )
    return text


def dump_result(result: Any) -> str | None:
    """Return a function's result as JSON text; None for None. Tuples become lists.

    Raises:
        TypeError: The result has no JSON form. The message says why.
        ValueError: The text is larger than `MAX_DATA_BYTES`.
    """
    if result is None:
        return None
    try:
        text = _encoded(result)
    except _ENCODING_ERRORS as error:
        raise TypeError(f"a result of type {type(result).__name__} cannot be stored as JSON: {error}") from None
    if len(text) > MAX_DATA_BYTES:
        raise ValueError(f"the result takes {len(text):,} bytes of JSON, more than {MAX_DATA_BYTES:,}")
    return text


def load_arguments(text: str) -> dict[str, Any]:
    """Return the keyword arguments of a job from their JSON text, which `dump_arguments` made."""
    arguments: dict[str, Any] = _scan(text, 0)[0]  # half the cost of json.loads, which looks for white space first
    return arguments


def as_arguments(value: object) -> dict[str, Any]:
    """Return a decoded value if it can be a job's arguments. Raises TypeError, which says what the value is."""
    if not isinstance(value, dict):
        raise TypeError(f"its data are {type(value).__name__}, not the arguments of a function by their names")
    return cast("dict[str, Any]", value)


def read_json(text: str) -> Any:
    """Return the value of JSON text that anybody may have written. Raises ValueError if Python cannot read it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep for Python") from None


def storable_text(text: str) -> str:
    """Return `text` with characters that PostgreSQL's text cannot hold (NUL, lone surrogates) as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
