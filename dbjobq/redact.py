"""Removes passwords and tokens from text that quotes a DSN, a header or a setting. Text in, text out.

Where a text may be read in two ways, more is removed than need be: an error that lost a word is still an error.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["without_passwords"]

_WORD: Final = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|credential|authtoken|\w[_-]token"
    r"|(?:api|access|private|account|shared|signing)[_-]?key)"
)
_NAME: Final = rf"[\w-]{{0,60}}?{_WORD}[\w-]{{0,30}}"
"""The name of a setting that holds a secret, such as `PGPASSWORD` or `sslpassword`."""
_IS: Final = r"(?:\\*[\"']\s*(?::|=>?|,)|:|%(?:25)*3D)[^\S\n]*|\s+(?=[a-z]?\\*[\"'])"
"""The separator between a setting's name and its value: `": `, `', `; in SQL nothing but a space."""
_QUOTED: Final = (
    r"(?:[a-z]{0,2}(?P<slash>\\*)(?P<quote>[\"'])"
    r"(?:(?:\\.|(?P=quote){2}|[^\\]){0,2000}?(?<!\\)(?P=slash)(?P=quote)(?!(?P=quote))|[^\n]*))"
)
"""A quoted value. Its closing quote is escaped as often as the opening one; without one it ends with the line."""
_BARE: Final = r"(?:\\.|\S)"
_PORT: Final = r"\d{1,5}(?![^\s/?#\\\"'<>),;\]}])"
"""The port behind a host's colon. Anything that follows begins a path or ends the URL."""
_BEFORE_AT: Final = r"[^\s@]*(?: [^\s@\"']+){0,3}\s?@\S*|\S*"
_AT: Final = re.compile(r"@|%(?:25)*40")

_URLS: Final = re.compile(rf"(://(?!\[)[^\s:/]*:)(?!{_PORT})({_BEFORE_AT})")
"""`://user:…@`, also where the password has slashes, spaces and other @s in it."""
_ENCODED_URLS: Final = re.compile(
    r"(%(?:25)*3a(?:%(?:25)*2f){2}(?:(?!%(?:25)*(?:3a|2f))\S){0,200}%(?:25)*3a)(\S*)", re.IGNORECASE
)
_OTHERS: Final = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(?P<kept>https?://)[^\s/:@\"'?#]+(?=@)",
        r"(?P<kept>authorization\\*[\"']?\s*[:=,]\s*\\*[\"']?(?:\w+[^\S\n]+)?)[^\s\"'\\]+",
        r"(?P<kept>\bbearer\s+)[\w.~+/=-]{20,}",
        r"(?P<kept>\b)eyJ[\w-]{10,2000}\.[\w-]{10,2000}\.[\w-]*",  # a JSON Web Token
        # libpq's errors about a DSN that it cannot read.
        r"(?P<kept>missing \"=\" after |URI query parameter: |percent-encoded (?:token|value): )\"[^\n]*\"",
        r"(?P<kept>(?:host name|server at) \")[^\"\s]*(?=@)",
        rf"(?P<kept>[?&](?:{_NAME}|(?:x-amz-)?(?:\w{{0,30}}token|sig(?:nature)?))=)[^\s&#\"'<>]*",
        rf"(?P<kept><{_NAME}>)[^<]*",
        rf"(?P<kept>(?<![\w?&-])--{_NAME}[ =])(?:{_QUOTED}{_BARE}*|{_BARE}+)",
        rf"(?P<kept>(?<![\w?&-])(?:{_NAME}|pass|token)\s*:?={{1,3}}>?[^\S\n]*)(?:{_QUOTED}{_BARE}*|{_BARE}+)",
        rf"(?P<kept>(?<![\w?&-])(?:{_NAME}|(?:pass|token)(?=\\*[\"']))(?:{_IS}))(?:{_QUOTED}|{_BARE}+)",
    )
]


def without_passwords(text: str) -> str:
    """Return text (a message, a traceback) without the passwords and tokens that it quotes."""
    for urls in (_URLS, _ENCODED_URLS):
        text = urls.sub(_password_left_out, text)
    for pattern in _OTHERS:
        text = pattern.sub(r"\g<kept>***", text)
    return text


def _password_left_out(found: re.Match[str]) -> str:
    """Replace everything between a URL's colon and its last @ by asterisks, if there is an @."""
    ends = [at.start() for at in _AT.finditer(found[2])]
    return f"{found[1]}***{found[2][ends[-1] :]}" if ends else found[0]
