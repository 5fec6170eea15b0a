"""Licences of pages: their URLs to SPDX identifiers, and which of them leave the text open to reuse.

A licence named in a page may cover a picture only: the verdict asks for all that a page names."""

import re
from urllib.parse import urlsplit

_CREATIVE_COMMONS = re.compile(
    r"/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)/(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)|publicdomain/(zero|mark)/1\.0)(?:/.*)?"
)
_LICENSE_PAGES = (
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?(a?gpl|lgpl)-([123]\.[0-3])"), "{}-{}"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?fdl-(1\.[1-3])"), "gfdl-{}"),
    (re.compile(r"apache\.org/licenses/license-(1\.1|2\.0)"), "apache-{}"),
    (re.compile(r"opensource\.org/licenses?/([\w.-]+)"), "{}"),
    (re.compile(r"spdx\.org/licenses/([\w.+-]+)"), "{}"),
    (re.compile(r"mozilla\.org/(?:[\w-]+/)?mpl/(1\.1|2\.0)"), "mpl-{}"),
    (re.compile(r"nationalarchives\.gov\.uk/doc/open-government-licence/version/([123])"), "ogl-uk-{}.0"),
    (re.compile(r"open\.canada\.ca/(?:en|fr)/(?:open-government-licence-canada|licence-du-.*)"), "ogl-canada-2.0"),
    (re.compile(r"unlicense\.org"), "unlicense"),
)
"""Address of a licence's page, in lower case, without www. and the file's ending; the name it gives."""

_SPDX_IDS = (
    "MIT",
    "MIT-0",
    "ISC",
    "Zlib",
    "Unlicense",
    "0BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Apache-1.1",
    "Apache-2.0",
    "MPL-1.1",
    "MPL-2.0",
    "EPL-1.0",
    "EPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "GFDL-1.1-only",
    "GFDL-1.1-or-later",
    "GFDL-1.2-only",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "Artistic-2.0",
    "BSL-1.0",
    "PostgreSQL",
    "Python-2.0",
    "PSF-2.0",
    "OFL-1.1",
    "CC0-1.0",
    "CC-BY-2.0",
    "CC-BY-2.5",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-2.0",
    "CC-BY-SA-2.5",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-NC-ND-4.0",
    "OGL-UK-1.0",
    "OGL-UK-2.0",
    "OGL-UK-3.0",
    "OGL-Canada-2.0",
)
_ALIASES = {"mit-license": "MIT", "isc-license": "ISC", "bsd-license": "BSD-2-Clause"}
_SPDX_BY_NAME = {name.lower().removesuffix("-only"): name for name in _SPDX_IDS if name.endswith("-only")}
_SPDX_BY_NAME |= {name.lower(): name for name in _SPDX_IDS} | _ALIASES
_FILE_ENDING = re.compile(r"(?:\.[a-z]{2})?\.(?:html?|txt|php)$")


_CC_NAME = re.compile(r"cc-(by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)-(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0)(?:-[a-z]{2,4})?")
_CC_PUBLIC_DOMAIN = {"cc0": "CC0-1.0", "cc0-1.0": "CC0-1.0", "pdm": "CC-PDM-1.0", "cc-pdm-1.0": "CC-PDM-1.0"}


def spdx(license_url_or_id: str | None) -> str | None:
    """SPDX identifier of a licence given by its URL, or by its identifier in any letter case; None where it is unknown.

    The port of a Creative Commons licence to a country (`/3.0/us/`) is dropped. A GNU licence reads
    as `-only`: the link does not say "or later".
    """
    if license_url_or_id is None:
        return None
    text = license_url_or_id.strip().lower()
    if "/" not in text:
        return _named(text.replace(" ", "-"))
    try:
        url = urlsplit(text)
        host = (url.hostname or "").removeprefix("www.")
    except ValueError:
        return None
    path = url.path.rstrip("/")
    if host == "creativecommons.org":
        return _creative_commons(path)
    page = host + _FILE_ENDING.sub("", path)
    for pattern, name in _LICENSE_PAGES:
        if match := pattern.fullmatch(page):
            return _named(name.format(*match.groups()))
    return None


def is_open(spdx_id: str) -> bool:
    """Whether a licence allows everybody to copy and adapt: CC0, public domain mark, BY, BY-SA, OGL, permissive, GNU.

    One with NC or ND does not, nor does one that is not known here.
    """
    name = spdx(spdx_id)
    return name is not None and not {"NC", "ND"} & set(name.split("-"))


def _named(name: str) -> str | None:
    if match := _CC_NAME.fullmatch(name):
        return f"CC-{match[1].replace('nd-nc', 'nc-nd').upper()}-{match[2]}"
    return _CC_PUBLIC_DOMAIN.get(name) or _SPDX_BY_NAME.get(name)


def _creative_commons(path: str) -> str | None:
    match = _CREATIVE_COMMONS.fullmatch(path)
    if match is None:
        return None
    if match[3]:
        return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}[match[3]]
    kind = match[1].replace("nd-nc", "nc-nd").upper()
    return f"CC-{kind}-{match[2]}"
