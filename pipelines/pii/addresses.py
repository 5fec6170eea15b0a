"""E-mail addresses (RFC 5321 as people use it) and public IP addresses (RFC 791, RFC 4291)."""

import ipaddress
import re

_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-'"
_LOCAL_MAX_CHARS = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN = re.compile(
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"([Xx][Nn]--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24})(?![A-Za-z0-9])"
)
# Ends that name a file or a private network: icon@2x.png, root@localhost.localdomain.
# fmt: off
_NOT_TOP_LEVEL = frozenset(
    (
        "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "bmp", "css", "js", "mjs", "html", "htm", "json",
        "xml", "yaml", "yml", "toml", "txt", "pdf", "php", "exe", "dll", "jar", "class", "service", "socket",
        "target", "timer", "mount", "local", "localhost", "localdomain", "internal", "lan",
    )
)
# fmt: on


def find_emails(text: str) -> list[tuple[int, int]]:
    """Spans of e-mail addresses.

    Addresses under the reserved example domains are found too: their local part may well be a
    person's name, and a placeholder costs a documentation page nothing. `git@host:` is not one.
    """
    spans: list[tuple[int, int]] = []
    for match in _DOMAIN.finditer(text) if "@" in text else ():
        at = match.start()
        floor = spans[-1][1] if spans else 0
        head = text[max(floor, at - _LOCAL_MAX_CHARS - 1) : at]
        local = head[len(head.rstrip(_LOCAL)) :]
        if len(local) > _LOCAL_MAX_CHARS:  # a blob of text, not a name
            continue
        local = local.lstrip(".-'%")
        is_clone_url = local == "git" and text.startswith(":", match.end())
        if local and not local.endswith(".") and not is_clone_url and match[1].lower() not in _NOT_TOP_LEVEL:
            spans.append((at - len(local), match.end()))
    return spans


# In the patterns below the look-behind comes after the first character, so that the engine can skip to it quickly.
# A dotted quad that stands alone: no part of 1.2.3.4.5, v1.2.3.4, name-1.2.3.4, name/1.2.3.4, >=1.2.3.4 or 1.2.3.4-r1.
_IPV4 = re.compile(
    r"[0-9](?<![0-9A-Za-z_.~^].)(?<![A-Za-z][-/].)(?<![=<>~!]=.)[0-9]{0,2}(?:\.[0-9]{1,3}){3}"
    r"(?![0-9A-Za-z_]|\.[0-9A-Za-z]|-(?![0-9]{1,3}(?:\.[0-9]{1,3}){3})[0-9A-Za-z])"
)
_HAS_IPV4 = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
# All of the public internet is in 2000::/3 (RFC 4291, 2.4), so the first group has four digits and starts with 2 or 3.
_IPV6 = re.compile(
    r"[23](?<![0-9A-Za-z_:.-].)[0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){1,6}:(?:[0-9A-Fa-f]{1,4}|(?<=::))"
    r"(?![0-9A-Za-z_]|:[0-9A-Fa-f:]|\.[0-9])"
)
_HAS_IPV6 = re.compile(r":[0-9A-Fa-f]{0,4}:")
_NUMBERED_THING_BEFORE = re.compile(
    r"(?:\b(?:version|ver\.?|v\.?|release|rev\.?|revision|section|sections|sec\.|sect\.|chapter|clause|appendix|figure"
    r"|fig\.|table|item|step|see|cf\.|rfc|kernel|linux)|§|第|版本|版|章|节|小节|图|表|附录|条|款|参见|见)[\s:：号为是]*$",
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


def find_ips(text: str) -> list[tuple[int, int]]:
    """Spans of public IPv4 and IPv6 addresses. Version numbers and section numbers are not addresses."""
    spans = []
    if _HAS_IPV4.search(text):
        spans += [m.span() for m in _IPV4.finditer(text) if _is_public(m[0]) and not _is_numbering(text, m)]
    if _HAS_IPV6.search(text):
        spans += [m.span() for m in _IPV6.finditer(text) if _is_public(m[0])]
    return sorted(spans)


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
