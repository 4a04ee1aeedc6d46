"""Removes secrets from text before it leaves the machine.

It finds the values of environment variables with secret names, keys in the format of a well-known service, and values after
a name such as ``password`` or in the user part of a URL. A number is never a secret, nor is the value of a name such as
``max_new_tokens`` or ``pad_token``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
WHOLE_WORD = 8
"""A secret with fewer characters is hidden only where it stands as a word of its own."""

_NAME = (
    r"(?:[\w.-]*[_.-])?(?:(?:pg|my|db)?(?:password|passwd|passphrase|pwd)"
    r"|(?:access|auth|client|refresh|api|hub|hf)?(?:token|secret)"
    r"|(?:api|access|secret|private|account|auth)[_-]?key|credentials?|authorization)(?:[_-](?:id|key|value))?"
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
_AUTHORIZATION = re.compile(
    rf"""(?i)(?P<start>\bauthorization{_QUOTE}\s*[:=]\s*{_QUOTE})(?:(?:bearer|basic|token|digest|apikey)\s+)?[^\s"'\\]{{8,}}"""
)
_USER = re.compile(r"(?P<start>\s(?:-u|--user)[ =][^\s:]+):\S+")
_URL_PASSWORD = re.compile(r"(?P<start>\b[a-zA-Z][\w+.-]*://[^\s/:@\"']*):(?P<password>[^\s/\"']+)@")
_URL_TOKEN = re.compile(r"(?P<start>\b[a-zA-Z][\w+.-]*://)(?:[^\s/:@\"']{20,}|(?=[^\s/:@\"']*\d)[^\s/:@\"']{12,})@")
_URL_SIGNATURE = re.compile(
    r"(?i)(?P<start>[?&](?:sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token))=)[^\s&\"']+"
)
_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|A[KS]IA[0-9A-Z]{16}"
    r"|[rs]k_(?:live|test)_\w{16,}|npm_\w{20,}|r8_\w{20,}|dckr_pat_[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|ya29\.[\w-]{20,}"
    r"|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,}|xapp-[\w-]{10,}|(?<=hooks\.slack\.com/services/)[\w/-]{10,}"
    r"|dapi[0-9a-f]{32}|pypi-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{5,})"
)
"""Keys that a service makes in a format of its own; the prefixes are those that the services document."""
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{12,}")
_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_VARIABLE = re.compile(rf"(?i)\A{_NAME}\Z")


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """Return the text with every secret replaced by ``***``; ``known`` are further secrets.

    >>> scrub("postgresql://ann:s3cret@db/optuna and max_new_tokens: 128, hub_token: abcdefgh")
    'postgresql://ann:***@db/optuna and max_new_tokens: 128, hub_token: ***'
    """
    for secret in sorted({*known, *_of(tuple(os.environ.items()))}, key=len, reverse=True):
        if len(secret) >= WHOLE_WORD:
            text = text.replace(secret, HIDDEN)
        elif secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    text = _BLOCK.sub(HIDDEN, text)
    text = _URL_PASSWORD.sub(rf"\g<start>:{HIDDEN}@", text)
    text = _URL_TOKEN.sub(rf"\g<start>{HIDDEN}@", text)
    text = _URL_SIGNATURE.sub(rf"\g<start>{HIDDEN}", text)
    text = _KNOWN.sub(HIDDEN, text)
    text = _AUTHORIZATION.sub(rf"\g<start>{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _USER.sub(rf"\g<start>:{HIDDEN}", text)
    return _BESIDE.sub(_hide, text)


def scrub_url(url: str) -> str:
    """Return the URL without its password. Unlike :func:`scrub` it does not depend on the environment.

    >>> scrub_url("postgresql://ann:a/b@host/db")
    'postgresql://ann:***@host/db'
    """
    return re.sub(r"(://[^/@:]*):.*@", rf"\1:{HIDDEN}@", url)


def secret_name(name: str) -> bool:
    """Return whether a value with this name is secret.

    >>> [secret_name(n) for n in ("hub_token", "HF_TOKEN", "pad_token", "max_new_tokens", "learning_rate")]
    [True, True, False, False, False]
    """
    return bool(_VARIABLE.match(name)) and not _HARMLESS.search(name)


def of_url(url: str) -> set[str]:
    """Return the password in a URL, as written and percent-decoded; empty without one."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        return set()
    return {word for word in (password, unquote(password)) if len(word) >= 4}


@lru_cache(maxsize=1)
def _of(variables: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """Return the secrets of an environment. Cached, as a tracker scrubs a dozen texts for each trial."""
    return frozenset(of_environment(dict(variables)))


def of_environment(environment: Mapping[str, str]) -> set[str]:
    """Return the values of variables with secret names, and the passwords in URLs among the other values.

    >>> of_environment({"PWD": "/home/ann/project", "HUB_TOKEN": "abcdefgh"})
    {'abcdefgh'}
    """
    found = {
        value
        for name, value in environment.items()
        if len(value) >= 5
        and name != "PWD"  # the shell's current folder
        and (secret_name(name) or (name.upper().endswith("_KEY") and len(value) >= 16))
    }
    for value in environment.values():
        if "://" in value and "@" in value:
            found |= of_url(value)
    return {secret for secret in found if not _plain(secret)}


def _plain(value: str) -> bool:
    return value.strip().lower() in ("", "true", "false", "none", "null") or value.replace(".", "").isdigit()


def _hide(match: re.Match[str]) -> str:
    if _HARMLESS.search(match["name"]) or _plain(match["value"] or match["quoted"]) or HIDDEN in match[0]:
        return match[0]
    return f"{match['name']}{match['sign']}{match['quote'] or ''}{HIDDEN}"
