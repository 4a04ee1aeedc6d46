"""Removes secrets from text before it leaves the machine.

It finds the values of environment variables and of options with secret names, keys in the format of a well-known service, and
values after a name such as ``password`` or in the user part of a URL. A number is never a secret, nor is the value of a name
such as ``max_new_tokens`` or ``pad_token``.

A value known by its name is hidden everywhere if it has at least 16 characters, or 8 that are not all letters. A shorter one
is hidden where it is a word of its own if it has 8 letters, or 5 characters that are not all letters. Any other could be an
ordinary word (``API_TOKEN=test``) and is hidden only beside its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
ADDRESSES = ("storage", "uri")
"""Keys of a study whose value is one URL, in which a password may contain anything."""

_NAME = (
    r"(?:[\w.-]*[_.-])?(?:(?:pg|my|db)?(?:password|passwd|passphrase|pwd)"
    r"|(?:access|auth|client|refresh|api|hub|hf)?(?:token|secret)"
    r"|(?:api|(?:shared[_-]?)?access|secret|private|account|auth)[_-]?key|credentials?|authorization)(?:[_-](?:id|key|value))?"
)
_HARMLESS = re.compile(
    r"(?i)(?:pad|eos|bos|unk|sep|cls|mask|sot|start|end|stop|special|image|audio|video|decoder_start|forced)[_-]token"
)
_QUOTE = r"""(?:\\*["'])?"""
"""A quotation mark, escaped or not, where there is one."""
_BESIDE = re.compile(
    rf"""(?i)(?<![\w.-])(?P<name>{_QUOTE}(?P<option>--)?{_NAME}{_QUOTE})(?P<sign>\s*[:=]\s*|(?(option)\s+|(?!)))"""
    r"""(?:(?P<quote>\\*["'])(?P<quoted>.{4,}?)(?=(?P=quote))|(?P<value>[^\s"',;&}\\]{4,}))"""
)
_SOME_NAME = re.compile(r"(?i)pass|pwd|token|secret|key|credential|authoriz")
"""Found in every text in which a secret's name is; quicker."""
_AUTHORIZATION = re.compile(
    rf"""(?i)(?P<start>\bauthorization{_QUOTE}\s*[:=]\s*{_QUOTE})(?:(?:bearer|basic|token|digest|apikey)\s+)?[^\s"'\\]{{8,}}"""
)
_USER = re.compile(r"(?P<start>\s(?:-u|--user)[ =][^\s:]+):\S+")
_URL_PASSWORD = re.compile(r"(?P<start>\b[a-zA-Z][\w+.-]*://[^\s/:@\"']*):(?P<password>[^\s/\"']+)@")
_URL_TOKEN = re.compile(
    r"(?P<start>\b[a-zA-Z][\w+.-]*://)(?P<token>[^\s/:@\"']{20,}|(?=[^\s/:@\"']*\d)[^\s/:@\"']{12,})@"
)
_ADDRESS = re.compile(r"(?P<start>://[^/@:]*):(?P<password>.*)@")
_URL_SIGNATURE = re.compile(
    r"(?i)(?P<start>[?&](?:sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token)|key(?==[^\s&\"']{16,}))=)[^\s&\"']+"
)
_URL_QUERY = re.compile(r"[?&]([\w.-]+)=([^\s&\"'#]+)")
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|A[KS]IA[0-9A-Z]{16}"
    r"|[rs]k_(?:live|test)_\w{16,}|npm_\w{20,}|r8_\w{20,}|dckr_pat_[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|ya29\.[\w-]{20,}"
    r"|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,}|xapp-[\w-]{10,}|(?<=hooks\.slack\.com/services/)[\w/-]{10,}"
    r"|(?<=/api/webhooks/)\d+/[\w-]{10,}|(?<=office\.com/webhookb2/)[\w@/-]{10,}"
    r"|dapi[0-9a-f]{32}|pypi-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{5,})"
)
"""Keys that a service makes in a format of its own; the prefixes are those that the services document."""
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{12,}")
_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_VARIABLE = re.compile(rf"(?i)\A{_NAME}\Z")
_VARIABLE_ALONE = re.compile(r"(?i)(?:_|\bssh|\bdb)pass\Z")
"""Only for names of environment variables: in other text, ``second_pass=`` is not a password."""


_learned: dict[str, str] = {}
"""Secret → the name it goes by, empty for one in a URL: those of the studies that this process has read."""


def learn(data: Any, name: str = "") -> None:
    """Remember the secrets in a study's plain data, so that :func:`scrub` finds them: values with secret names, and in URLs."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if key in ADDRESSES and isinstance(value, str):
                _learned.update(dict.fromkeys(_words(match["password"] for match in _ADDRESS.finditer(value)), ""))
            learn(value, name or (key if secret_name(str(key)) else ""))
    elif isinstance(data, (list, tuple)):
        for value in data:
            learn(value, name)
    elif isinstance(data, str) and HIDDEN not in data:
        _learned.update(dict.fromkeys(of_url(data), ""))
        if name and not _plain(data):
            _learned[data] = name


def hide(data: Any, name: str = "") -> Any:
    """Return plain data without secrets: nothing under a secret name, and texts as :func:`scrub` leaves URLs and values.

    >>> hide({"api_key": "abc", "data": {"train": "https://ann:s3cret@host/a.csv"}, "pad_token": "[PAD]"})
    {'api_key': '***', 'data': {'train': 'https://ann:***@host/a.csv'}, 'pad_token': '[PAD]'}
    """
    if isinstance(data, Mapping):
        found = {key: hide(value, name or (key if secret_name(str(key)) else "")) for key, value in data.items()}
        return {k: scrub_url(v) if k in ADDRESSES and isinstance(v, str) else v for k, v in found.items()}
    if isinstance(data, (list, tuple)):
        return [hide(value, name) for value in data]
    if not isinstance(data, str):
        return data
    if name:
        return HIDDEN if data else data
    # What stands after "password:" in an option's text, such as a prompt, is a part of the study.
    return scrub(data) if "://" in data else _KNOWN.sub(HIDDEN, _BLOCK.sub(HIDDEN, without_known(data)))


def reveal(data: Any, whole: Any) -> Any:
    """Return hidden data with what :func:`hide` took from it, as far as ``whole`` is the same otherwise.

    >>> reveal({"url": "https://ann:***@host", "size": 1}, {"url": "https://ann:pw@host", "size": 2})
    {'url': 'https://ann:pw@host', 'size': 1}
    """
    if isinstance(data, Mapping):
        return {key: reveal(value, _inside(whole, key)) for key, value in data.items()}
    if isinstance(data, list):
        return [reveal(value, _inside(whole, index)) for index, value in enumerate(data)]
    return whole if _tells(whole, data) else data


def lost(data: Any, whole: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of texts in hidden data that :func:`reveal` cannot complete.

    >>> list(lost({"task": {"api_key": "***", "size": 1}}, {})), list(lost({"sign": "***"}, {"sign": "***"}))
    (['task.api_key'], [])
    """
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield from lost(value, _inside(whole, key), f"{path}.{key}".lstrip("."))
    if isinstance(data, str) and HIDDEN in data and not _tells(whole, data):
        yield path


def _inside(whole: Any, key: Any) -> Any:
    if isinstance(whole, Mapping):
        return whole.get(key)
    return whole[key] if isinstance(whole, list) and isinstance(key, int) and key < len(whole) else None


def _tells(whole: Any, hidden: Any) -> bool:
    """Whether ``whole`` is a text that is the other one up to what is hidden there."""
    if not isinstance(hidden, str) or not isinstance(whole, str) or HIDDEN not in hidden:
        return False
    return re.fullmatch(".*".join(map(re.escape, hidden.split(HIDDEN))), whole, re.DOTALL) is not None


def scrub(text: str) -> str:
    """Return the text with every secret replaced by ``***``.

    >>> scrub("postgresql://ann:s3cret@db/optuna and max_new_tokens: 128, hub_token: abcdefgh")
    'postgresql://ann:***@db/optuna and max_new_tokens: 128, hub_token: ***'
    """
    text = _BLOCK.sub(HIDDEN, without_known(text))
    text = _URL_PASSWORD.sub(rf"\g<start>:{HIDDEN}@", text)
    text = _URL_TOKEN.sub(rf"\g<start>{HIDDEN}@", text)
    text = _URL_SIGNATURE.sub(rf"\g<start>{HIDDEN}", text)
    text = _KNOWN.sub(HIDDEN, text)
    text = _AUTHORIZATION.sub(rf"\g<start>{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _USER.sub(rf"\g<start>:{HIDDEN}", text)
    return _BESIDE.sub(_hide, text) if _SOME_NAME.search(text) else text


def without_known(text: str) -> str:
    """Return the text without the secrets of the environment and of the studies that were read."""
    found = {**_of(tuple(os.environ.items())), **_learned}
    for secret in sorted(filter(text.__contains__, found), key=len, reverse=True):
        letters, length = secret.isalpha(), len(secret)
        if length >= 16 or (length >= 8 and not letters):
            text = text.replace(secret, HIDDEN)
        elif length >= 8 or (length >= 5 and not letters):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
        elif name := found[secret]:
            called = re.escape(name).replace("_", "[_-]")
            beside = rf"(?i)(?<![A-Za-z0-9])({called}{_QUOTE}\s*[:=]\s*{_QUOTE}|--{called}\s+)(?-i:{re.escape(secret)})(?!\w)"
            text = re.sub(beside, rf"\g<1>{HIDDEN}", text)
    return text


def scrub_url(url: str) -> str:
    """Return the URL without its password. Unlike :func:`scrub` it does not depend on the environment.

    >>> scrub_url("postgresql://ann:a/b@host/db")
    'postgresql://ann:***@host/db'
    """
    return _ADDRESS.sub(rf"\g<start>:{HIDDEN}@", url)


def secret_name(name: str) -> bool:
    """Return whether a value with this name is secret.

    >>> [secret_name(n) for n in ("hub_token", "HF_TOKEN", "pad_token", "max_new_tokens", "learning_rate")]
    [True, True, False, False, False]
    """
    return bool(_VARIABLE.match(name)) and not _HARMLESS.search(name)


def of_url(text: str) -> set[str]:
    """Return the passwords and tokens in the URLs of a text, as written and percent-decoded."""
    found = {match["password"] for match in _URL_PASSWORD.finditer(text)}
    queried = {value for name, value in _URL_QUERY.findall(text) if secret_name(name)}
    return _words(found | queried | {match["token"] for match in _URL_TOKEN.finditer(text)})


def _words(secrets: Iterable[str]) -> set[str]:
    return {word for each in secrets if each != HIDDEN for word in (each, unquote(each)) if len(word) >= 4}


@lru_cache(maxsize=1)
def _of(variables: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the secrets of an environment. Cached, as a tracker scrubs a dozen texts for each trial."""
    return of_environment(dict(variables))


def of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the values of variables with secret names, and the passwords in URLs among the other values; secret → name.

    >>> of_environment({"PWD": "/home/ann/project", "HUB_TOKEN": "abcdefgh"})
    {'abcdefgh': 'HUB_TOKEN'}
    """
    found = dict.fromkeys((secret for value in environment.values() if "://" in value for secret in of_url(value)), "")
    found |= {
        value: name
        for name, value in environment.items()
        if name != "PWD"  # the shell's current folder
        and (secret_name(name) or _VARIABLE_ALONE.search(name) or (name.upper().endswith("_KEY") and len(value) >= 16))
    }
    return {secret: name for secret, name in found.items() if not _plain(secret)}


def _plain(value: str) -> bool:
    return value.strip().lower() in ("", "true", "false", "none", "null") or value.replace(".", "").isdigit()


def _hide(match: re.Match[str]) -> str:
    if _HARMLESS.search(match["name"]) or _plain(match["value"] or match["quoted"]) or HIDDEN in match[0]:
        return match[0]
    return f"{match['name']}{match['sign']}{match['quote'] or ''}{HIDDEN}"
