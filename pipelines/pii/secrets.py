"""Keys that open something: API keys and tokens by their provider's prefix, private keys by their armour (RFC 7468)."""

import math
import re
from collections import Counter

from pipelines.pii.classes import KEY, SECRET
from pipelines.pii.runs import Scan

# As the providers document them; group 1 is the part that is random.
_KEY = re.compile(
    r"(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)([A-Z2-7]{16})"  # Amazon
    r"|AIza([0-9A-Za-z_-]{35})|ya29\.([0-9A-Za-z_-]{20,}+)"  # Google
    r"|gh[pousr]_([0-9A-Za-z]{36,255})|github_pat_([0-9A-Za-z_]{60,255})|gl(?:pat|dt|rt|cbt|ptt)-([0-9A-Za-z_-]{20,}+)"
    r"|sk-(?:ant|proj|svcacct|admin|or)-([0-9A-Za-z_-]{20,}+)|sk-([0-9A-Za-z]{20,}+)"  # Anthropic, OpenAI and kin
    r"|[sr]k_(?:live|test|prod)_([0-9A-Za-z]{16,}+)|whsec_([0-9A-Za-z]{24,}+)"  # Stripe
    r"|xox[abeoprs]-([0-9A-Za-z-]{16,}+)|xapp-([0-9A-Za-z-]{16,}+)"  # Slack
    r"|SG\.([0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{32,64})|key-([0-9a-f]{32})|SK([0-9a-f]{32})"  # SendGrid, Mailgun, Twilio
    r"|hf_([0-9A-Za-z]{30,}+)|npm_([0-9A-Za-z]{36})|pypi-([0-9A-Za-z_-]{50,}+)|dckr_pat_([0-9A-Za-z_-]{27})"
    r"|do[opr]_v1_([0-9a-f]{64})|shp(?:at|ca|pa|ss)_([0-9A-Fa-f]{32})|dapi([0-9a-f]{32})"
    r"|LTAI([0-9A-Za-z]{16,26})|AKID([0-9A-Za-z]{32})|ALTAK-?([0-9A-Za-z]{21,40})"  # Alibaba, Tencent, Baidu
    r"|eyJ[0-9A-Za-z_-]{10,}+\.(eyJ[0-9A-Za-z_-]{10,}+\.[0-9A-Za-z_-]{10,}+)"  # JSON web token (RFC 7519)
    r")(?![0-9A-Za-z])"
)
_DOTTED = ("SG.", "ya29.")  # prefixes that a run of characters does not hold
_NAMED_SECRET = re.compile(
    r"(?:(?i:aws.?secret.?access.?key|secret.?access.?key|access.?key.?secret|secret.?key)[\"']?\s{0,3}[=:：]{1,2}>?\s{0,3}[\"']?"
    r"([0-9A-Za-z/+]{30,64})|AccountKey=([0-9A-Za-z/+]{86}==))(?![0-9A-Za-z/+])"
)
_SECRET_WORD = re.compile(r"ecret(?:.?(?:[Aa]cc|[Kk]ey)|[\"']?\s{0,3}[=:：])")
_MIN_BITS_PER_CHAR = 3.0
"""Entropy of the random part: random hexadecimal has 3.3 and more, XXXX and 1234512345 less."""
_PLAIN_WORDS = re.compile("[a-z_-]*")
_MADE_UP = re.compile("example|placeholder|your|xxxx|0123456789|1234567890|abcdefgh", re.IGNORECASE)


def find_api_keys(at: Scan) -> list[tuple[int, int]]:
    """Spans of API keys, tokens and shared secrets: a provider's prefix and form, a random part."""
    text, spans = at.text, list[tuple[int, int]]()
    for start, _ in at.runs:
        dotted = next((prefix for prefix in _DOTTED if text.startswith(prefix, max(0, start - len(prefix)))), "")
        match = _KEY.match(text, max(0, start - len(dotted)))
        if match and (not spans or match.start() >= spans[-1][1]) and _is_random(match[match.lastindex or 0]):
            spans.append(match.span())
    names_secret = at.may_hold(SECRET) and (_SECRET_WORD.search(text) or "ECRET" in text)
    if names_secret or (at.may_hold(KEY) and "AccountKey=" in text):
        named = [m.span(m.lastindex or 0) for m in _NAMED_SECRET.finditer(text) if _is_random(m[m.lastindex or 0])]
        spans += [span for span in named if all(span[1] <= start or end <= span[0] for start, end in spans)]
    return sorted(spans)


def _is_random(part: str) -> bool:
    if _PLAIN_WORDS.fullmatch(part) or _MADE_UP.search(part):
        return False
    counts = Counter(part).values()
    return -sum(count / len(part) * math.log2(count / len(part)) for count in counts) >= _MIN_BITS_PER_CHAR


_ARMOUR = re.compile(r"-----BEGIN ((?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----")
_RULE = "-----"
_MAX_BODY_NUM_CHARS = 1 << 16
_MIN_BODY_NUM_CHARS = 48
"""Of Base64: an Ed25519 key has 64, the dots of a manual none."""


def find_private_keys(text: str) -> list[tuple[int, int]]:
    """Spans of private keys from BEGIN to END, or to the end of the Base64 text where that is cut off."""
    spans: list[tuple[int, int]] = []
    for match in _ARMOUR.finditer(text) if "PRIVATE KEY" in text else ():
        if spans and match.start() < spans[-1][1]:
            continue
        start, footer = match.end(), f"-----END {match[1]}-----"
        rule = text.find(_RULE, start, start + _MAX_BODY_NUM_CHARS)  # no Base64 and no header holds one
        has_footer = rule >= 0 and text.startswith(footer, rule)
        stop = rule if has_footer else _end_of_base64(text, start)
        if sum(map(str.isalnum, text[start:stop])) >= _MIN_BODY_NUM_CHARS:
            spans.append((match.start(), stop + len(footer) if has_footer else stop))
    return spans


_BASE64_LINES = re.compile(r"(?:(?:\s|\\[nr]){0,4}[0-9A-Za-z+/=]{16,}+){0,2000}+")


def _end_of_base64(text: str, start: int) -> int:
    lines = _BASE64_LINES.match(text, start)
    return lines.end() if lines else start
