"""E-mail addresses (RFC 5321 as people use it), public IP addresses (RFC 791, RFC 4291), hardware addresses."""

import ipaddress
import re
from collections.abc import Iterator
from itertools import chain

from pipelines.pii.domains import top_level_domains
from pipelines.pii.runs import Scan

_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-'"
_LOCAL_MAX_CHARS = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN = re.compile(
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)
# The address of somebody who did not want it read by machines: jane [at] site [dot] org.
# One for each bracket: a pattern that starts with one character is found ten times as fast as one of several.
_SPELLED_OUT = tuple(
    re.compile(
        rf"{bracket} ?(?:at|AT|At) ?[\])] ?((?:[A-Za-z0-9-]{{1,63}}(?:\.| ?[\[(] ?(?:dot|DOT|Dot) ?[\])] ?)){{1,8}}"
        r"([A-Za-z]{2,24}))(?![A-Za-z0-9])"
    )
    for bracket in (r"\(", r"\[")
)
_RESERVED = "example"  # RFC 2606; its top-level domains (.test, .invalid ...) are no public suffixes anyway
_RETINA_IMAGE = re.compile(r"[0-9](?:\.[0-9])?x\.[a-z0-9]{2,5}")  # icon@2x.zip: ends in a top-level domain now and then


def find_emails(text: str) -> list[tuple[int, int]]:
    """Spans of e-mail addresses whose domain ends in a public suffix; `git@host:` and example.* (RFC 2606) are none."""
    spans: list[tuple[int, int]] = []
    for match in _DOMAIN.finditer(text) if "@" in text else ():
        at = match.start()
        local = _local_part(text, at, spans[-1][1] if spans else 0)
        if not local or _RETINA_IMAGE.fullmatch(match[1]):
            continue
        length = _domain_num_chars(match[1])
        end = match.start(1) + length
        if length and not (local == "git" and text.startswith(":", end)):
            spans.append((at - len(local), end))
    for match in chain.from_iterable(pattern.finditer(text) for pattern in _SPELLED_OUT):
        at = match.start() - int(text.startswith(" ", max(0, match.start() - 1)))
        local = _local_part(text, at, 0)
        if local and match[2].lower() in top_level_domains():
            spans.append((at - len(local), match.end()))
    return _disjoint(sorted(spans))


def _local_part(text: str, end: int, floor: int) -> str:
    """What stands before the @ at `end`, not from before `floor`; empty where it is none."""
    head = text[max(floor, end - _LOCAL_MAX_CHARS - 1) : end]
    local = head[len(head.rstrip(_LOCAL)) :]
    if len(local) > _LOCAL_MAX_CHARS or local.endswith("."):  # a blob of text, not a name
        return ""
    return local.lstrip(".-'%")


def _domain_num_chars(name: str) -> int:
    """Length of the longest head of a dotted name that is a public domain: "site.org.Then" is one of 8; 0: none."""
    labels = name.lower().split(".")
    while len(labels) > 1 and not _is_top_level(labels[-1]):
        labels.pop()
    if len(labels) == 1 or _RESERVED in labels:
        return 0
    return len(".".join(labels)) - (len(labels[-1]) - len(_top_level_of(labels[-1])))


def _is_top_level(label: str) -> bool:
    return bool(_top_level_of(label))


def _top_level_of(label: str) -> str:
    """The label, or what stands before its first hyphen ("com-based"), where that is a top-level domain."""
    for candidate in (label, label.partition("-")[0]):
        if candidate in top_level_domains():
            return candidate
    return ""


def _disjoint(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for span in spans:
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


_MAC = re.compile(
    r"[0-9A-Fa-f](?<![0-9A-Za-z:.-].)[0-9A-Fa-f]([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Za-z]|[:-][0-9A-Za-z])"
)
_MAC_BIT_GROUP = 1  # in the first octet (IEEE 802): an address of many devices, nobody's own


def find_macs(text: str) -> list[tuple[int, int]]:
    """Spans of hardware (MAC) addresses of single devices, in pairs of hexadecimal digits."""
    return [
        match.span()
        for match in _MAC.finditer(text)
        if not int(match[0][:2], 16) & _MAC_BIT_GROUP and set(match[0]) - set("0:-")
    ]


# In the patterns below the look-behind comes after the first character, so that the engine can skip to it quickly.
# A dotted quad that stands alone: no part of 1.2.3.4.5, v1.2.3.4, name-1.2.3.4, name/1.2.3.4, >=1.2.3.4 or 1.2.3.4-r1.
# In Chinese text the word IP may stand right before it.
_IPV4 = re.compile(
    r"[0-9](?:(?<![0-9A-Za-z_.~^].)|(?<=IP.))(?<![A-Za-z][-/].)(?<![=<>~!]=.)[0-9]{0,2}(?:\.[0-9]{1,3}){3}"
    r"(?![0-9A-Za-z_]|\.[0-9A-Za-z]|-(?![0-9]{1,3}(?:\.[0-9]{1,3}){3})[0-9A-Za-z])"
)
_REST_OF_IPV4 = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")  # starts with a dot: found ten times as fast
# In full, eight groups, whatever the network. Four of them must have three digits: no list of pairs.
_FULL_IPV6_REST = re.compile(r":[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){6}(?![0-9A-Za-z_]|:[0-9A-Fa-f:]|\.[0-9])")
_FULL_IPV6_FIRST = re.compile(r"(?:(?<![0-9A-Za-z_.-])|(?<=IP))[0-9A-Fa-f]{1,4}\Z")
_LONG_GROUP = re.compile("[0-9A-Fa-f]{3,4}")
_MIN_LONG_GROUPS = 4
# Shortened, it could be a time or a name in C++:
# All of the public internet is in 2000::/3 (RFC 4291, 2.4), so the first group has four digits and starts with 2 or 3.
_IPV6 = re.compile(
    r"[23](?:(?<![0-9A-Za-z_.-].)|(?<=IP.))[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){1,6}:(?:[0-9A-Fa-f]{1,4}|(?<=::))"
    r"(?![0-9A-Za-z_]|:[0-9A-Fa-f:]|\.[0-9])"
)
# A colon before it belongs to a name ("client:"), not to an address that began earlier.
_NAME_AND_COLON = re.compile(r"(?:[G-Zg-z][A-Za-z]{0,12}|[^\x00-\x7f]|[\"'`)\]*]):\Z")
_NUMBERED_THING_BEFORE = re.compile(
    r"(?:\b(?:version|ver\.?|v\.?|release|firmware|driver|build|patch|upgraded? to|updated? to|downgraded? to|rev\.?|revision|section|sections|sec\.|sect\.|chapter|clause|appendix|figure"
    r"|fig\.|table|item|step|see|cf\.|rfc|kernel|linux)|§|第|版本|版|固件|驱动|补丁|内核|升级到|升级至|更新到|更新至|降级到|章|节|小节|图|表|附录|条|款|参见|见)[\s:：号为是]*$",
    re.IGNORECASE,
)
_NUMBERED_THING_AFTER = re.compile(r"\s?(?:节|章|条|款|版|小节|段|项)")
_LINE_START = re.compile(r"(?:^|\n)[ \t#*=•-]*$")
_HEADING_AFTER = re.compile(r"\.[ \t\u3000]+\S|[ \t\u3000]*[^\W\d_]")
_NAME_BEFORE = re.compile(r"([A-Za-z][\w+-]*)[ \u3000]$")
# fmt: off
_ADDRESS_WORDS = frozenset(
    (
        "ip", "ipv4", "inet", "addr", "address", "addresses", "host", "hosts", "server", "servers", "dns",
        "nameserver", "resolver", "gateway", "router", "proxy", "client", "peer", "ping", "ssh", "telnet",
        "curl", "nslookup", "dig", "traceroute", "connect", "connects", "block", "blocked", "allow", "allowed",
        "visit", "visited", "contact", "use", "used", "using", "from", "to", "at", "via", "by", "and", "or",
        "is", "was", "are", "on", "for", "of", "with", "the",
    )
)
# fmt: on
_MAX_SECTION = 99
_MAX_VERSION = 49
_CONTEXT_NUM_CHARS = 16


def find_ips(at: Scan) -> list[tuple[int, int]]:
    """Spans of public IPv4 and IPv6 addresses. Version numbers and section numbers are not addresses."""
    text, spans = at.text, []
    if at.has_ipv4:
        spans += [m.span() for m in _quads(text) if _is_public(m[0]) and not _is_numbering(text, m)]
    if at.has_ipv6:
        spans += [m.span() for m in _IPV6.finditer(text) if _is_public(m[0]) and _begins(text, m.start())]
        spans += _full_ipv6(text)
    return _disjoint(sorted(spans))


def _quads(text: str) -> Iterator[re.Match[str]]:
    """The matches of _IPV4."""
    for rest in _REST_OF_IPV4.finditer(text):
        dot = rest.start()
        head = text[max(0, dot - 3) : dot]
        match = _IPV4.match(text, dot - len(head) + len(head.rstrip("0123456789")))
        if match is not None:
            yield match


def _full_ipv6(text: str) -> Iterator[tuple[int, int]]:
    for rest in _FULL_IPV6_REST.finditer(text):
        first = _FULL_IPV6_FIRST.search(text[max(0, rest.start() - 5) : rest.start()])
        address = first[0] + rest[0] if first else ""
        if len(_LONG_GROUP.findall(address)) >= _MIN_LONG_GROUPS and _is_public(address):
            start = rest.end() - len(address)
            if _begins(text, start):
                yield start, rest.end()


def _begins(text: str, start: int) -> bool:
    before = text[max(0, start - _CONTEXT_NUM_CHARS) : start]
    return not before.endswith(":") or bool(_NAME_AND_COLON.search(before))


def _is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast


def _is_numbering(text: str, match: re.Match[str]) -> bool:
    """Does this dotted quad number a version, a section, a figure, or a heading that starts a line?

    Four small and unequal numbers after a name, such as `zlib 1.2.3.5`, are a version; 8.8.8.8 is not.
    """
    before = text[max(0, match.start() - _CONTEXT_NUM_CHARS) : match.start()]
    after = text[match.end() : match.end() + _CONTEXT_NUM_CHARS]
    if _NUMBERED_THING_BEFORE.search(before) or _NUMBERED_THING_AFTER.match(after):
        return True
    parts = {int(part) for part in match[0].split(".")}
    if name := _NAME_BEFORE.search(before):
        return len(parts) > 1 and max(parts) <= _MAX_VERSION and name[1].lower() not in _ADDRESS_WORDS
    at_line_start = (match.start() < _CONTEXT_NUM_CHARS or "\n" in before) and bool(_LINE_START.search(before))
    return at_line_start and max(parts) <= _MAX_SECTION and bool(_HEADING_AFTER.match(after))
