"""Finds personal data and secrets in text by their format and checksums, and replaces them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from curator_core.errors import UsageError, nearest
from curator_text.modifiers.base import Modifier

# Every pattern is bounded or free of nested repeats, because text is untrusted and must not make a match take forever.
# These are the letters of scripts with spaces between words. In Chinese or Japanese, no spaces surround an address, so
# an address begins and ends where these letters begin and end.
_LETTER = "A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u052f"
_EMAIL = (
    rf"(?<![{_LETTER}0-9_.+-])[{_LETTER}0-9][{_LETTER}0-9._%+-]{{0,63}}@(?:[{_LETTER}0-9][{_LETTER}0-9-]{{0,62}}\.){{1,8}}"
    rf"(?:xn--[A-Za-z0-9-]{{2,59}}|[{_LETTER}]{{2,24}})(?![{_LETTER}0-9_-])"
)
# Web pages use non-breaking spaces to keep numbers on one line.
_GAP = r"[ \u00a0\u202f]"
_IPV4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
_IPV6 = r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
_CARD = r"(?<![\w.-])\d{3,19}(?:[ \u00a0\u202f-]\d{3,19}){0,5}(?![\w-])"
_IBAN = rf"(?<!\w)[A-Z]{{2}}\d{{2}}(?:{_GAP}?[A-Z0-9]{{4}}){{2,7}}(?:{_GAP}?[A-Z0-9]{{1,3}})?(?!\w)"
_PHONE = (
    r"(?<![\w.+/-])(?:\+\d{1,3}[ \u00a0\u202f.-]?(?:\(\d{1,4}\)[ \u00a0\u202f.-]?)?\d(?:[ \u00a0\u202f.-]?\d){5,12}"
    r"|\([2-9]\d{2}\)[ \u00a0\u202f]?[2-9]\d{2}[ \u00a0\u202f.-]\d{4}|[2-9]\d{2}[.-][2-9]\d{2}[.-]\d{4})(?![\w-]|\.\d)"
)
_KEY = (
    # The key may also be a string in a program, or lack its last line.
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----(?:"
    r"[A-Za-z0-9+/=\s:,\\\"'-]{0,8000}?-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----"
    r"|(?:(?:\s|\\n){1,2}[A-Za-z0-9+/=]{32,76}){1,200}(?:(?:\s|\\n){1,2}[A-Za-z0-9+/=]{0,76})?(?!.))"
    r"|(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"
    r"|(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}(?!\w)"
    r"|(?<!\w)github_pat_[A-Za-z0-9_]{50,255}(?!\w)"
    r"|(?<!\w)glpat-[A-Za-z0-9_-]{20,64}(?![\w-])"
    r"|(?<!\w)xox[abeoprs]-[A-Za-z0-9-]{10,250}(?![\w-])"
    r"|(?<!\w)sk-(?:[a-z]{2,12}-)?[A-Za-z0-9_-]{20,200}(?![\w-])"
    r"|(?<!\w)[sr]k_(?:live|test)_[A-Za-z0-9]{16,99}(?!\w)"
    r"|(?<!\w)hf_[A-Za-z0-9]{30,64}(?!\w)"
    r"|(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)"
    r"|(?<!\w)AIza[A-Za-z0-9_-]{35}(?![\w-])"
    r"|(?<!\w)eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}(?![\w-])"
)
# The length of the IBANs of each country.
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18,
    "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22,
    "VG": 24, "XK": 20,
}  # fmt: skip


@dataclass(kw_only=True)
class PiiRedactor(Modifier):
    """Replaces e-mail addresses, IP addresses, phone numbers, credit cards, IBANs and keys by placeholders.

    ``kinds`` selects among them. Credit card numbers must begin with a prefix that is in use and pass the Luhn check;
    IBANs must have their country's length and pass mod 97; IP addresses must be valid; phone numbers need a country
    code or the American format. ``replace``: ``placeholder`` writes ``<EMAIL>``; ``hash`` writes
    ``<EMAIL_1f8a0c2b94d1>``, which is computed with ``salt`` and is the same for the same value, so that mentions can
    still be counted. A metric counts the values of each kind that were found.
    """

    kinds: Sequence[str] = ("key", "email", "iban", "credit_card", "ip", "phone")
    replace: Literal["placeholder", "hash"] = "placeholder"
    salt: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.kinds, str) or not isinstance(self.kinds, Iterable) or not self.kinds:
            raise UsageError(f"PiiRedactor.kinds must be a list of {', '.join(_FORMS)}, not {self.kinds!r}")
        for kind in self.kinds:
            if kind not in _FORMS:
                raise UsageError(
                    f"PiiRedactor.kinds contains {kind!r}{nearest(str(kind), _FORMS) or '.'} It can contain {', '.join(_FORMS)}"
                )
        if self.replace not in ("placeholder", "hash"):
            raise UsageError(f"PiiRedactor.replace must be 'placeholder' or 'hash', not {self.replace!r}")
        if not isinstance(self.salt, str):
            raise UsageError(f"PiiRedactor.salt must be text, not {self.salt!r}")
        if self.replace == "hash" and not self.salt:
            raise UsageError(
                "PiiRedactor.replace='hash' needs a secret salt: without it, anyone who guesses a value can verify "
                "the guess"
            )
        self._signs = "|".join(_SIGNS[kind] for kind in self.kinds)

    def may_change(self, values: pa.Array) -> pa.Array:
        return pc.match_substring_regex(values, self._signs)

    def modify(self, text: str) -> str:
        # The order of `kinds` does not matter, because keys are searched first: an address inside a key is part of the
        # key.
        for kind, (pattern, size) in _FORMS.items():
            if kind in self.kinds:
                text = self._without(text, kind, pattern, size)
        return text

    def _without(self, text: str, kind: str, pattern: re.Pattern[str], size: Callable[[str], int]) -> str:
        pieces: list[str] = []
        done = at = 0
        while match := pattern.search(text, at):
            start, found = match.start(), match[0][: size(match[0])]
            at = start + (len(found) or 1)  # a failed match may contain a valid one
            if found:
                self.record_metric(kind, 1)
                pieces += text[done:start], self._sign(kind, found)
                done = at
        return "".join([*pieces, text[done:]]) if pieces else text

    def _sign(self, kind: str, found: str) -> str:
        name = kind.upper()
        if self.replace == "placeholder":
            return f"<{name}>"
        plain = re.sub(r"[\s.()-]", "", found) if kind in ("phone", "credit_card", "iban") else found.lower()
        digest = hmac.new(self.salt.encode(), f"{kind}\0{plain}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"<{name}_{digest.hexdigest()[:12]}>"


def luhn(text: str) -> bool:
    """Whether a number passes the Luhn check of card numbers."""
    digits = [int(character) for character in text if character in "0123456789"]
    if len(digits) < 13 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def valid_iban(text: str) -> bool:
    """Whether a text has the length of its country's IBANs and the right check digits."""
    plain = "".join(text.split())
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


# How many characters of a match, from its start, are valid: all, none, or the part before further words or numbers of
# the same form ("BE68 5390 0754 7034 BIC", a card and its security code).


def _all(text: str) -> int:
    return len(text)


def _iban_size(text: str) -> int:
    at = [index for index, character in enumerate(text) if not character.isspace()]
    length = _IBAN_LENGTHS.get(text[:2], 0)
    if not 0 < length <= len(at):
        return 0
    size = at[length - 1] + 1
    whole = size == len(text) or text[size].isspace()
    return size if whole and valid_iban(text[:size]) else 0


def _card_size(text: str) -> int:
    if not _ISSUED.match(re.sub(r"\D", "", text[:8])):
        return 0
    ends = [match.end() for match in re.finditer(r"\d+", text)]
    return next((size for size in reversed(ends) if luhn(text[:size])), 0)


# Visa, Mastercard, American Express, Diners Club, JCB, UnionPay, Discover, Maestro. Timestamps in milliseconds begin
# with 1 and book numbers with 9; every tenth of them would pass the check.
_ISSUED = re.compile(r"4|5[0-8]|2[2-7]|3[04-9]|6")


def _ip_size(text: str) -> int:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0
    # `::` and 0.0.0.0 identify nobody, and occur in C++ and in version numbers.
    return 0 if address.is_unspecified else len(text)


def _phone_size(text: str) -> int:
    return len(text) if 7 <= sum(character.isdigit() for character in text) <= 15 else 0


# In the order of the search.
_FORMS: dict[str, tuple[re.Pattern[str], Callable[[str], int]]] = {
    "key": (re.compile(_KEY, re.ASCII), _all),
    "email": (re.compile(_EMAIL), _all),
    "iban": (re.compile(_IBAN, re.ASCII), _iban_size),
    "credit_card": (re.compile(_CARD, re.ASCII), _card_size),
    "ip": (re.compile(f"{_IPV4}|{_IPV6}", re.ASCII), _ip_size),
    "phone": (re.compile(_PHONE, re.ASCII), _phone_size),
}
# Patterns of which a text must contain at least one; Arrow searches all texts for them at once.
_SIGNS = {
    "key": r"PRIVATE KEY|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|sk-|[sr]k_(live|test)_|hf_|npm_|AIza|eyJ",
    "email": "@",
    "iban": r"[A-Z]{2}\d{2}",
    "credit_card": r"\d([ \x{a0}\x{202f}-]?\d){12}",
    "ip": r"\d\.\d|:[0-9A-Fa-f]*:",
    "phone": r"\+\d|\(\d{3}\)|\d{3}[.-]\d{3}",
}
