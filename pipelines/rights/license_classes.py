"""Classes of licences: what a page's licence, or its reservation of all rights, leaves to others."""

import re

from pipelines.rights.licenses import is_open, spdx

OPEN, NC, ND, NC_ND = "open", "nc", "nd", "nc-nd"
ALL_RIGHTS_RESERVED, UNKNOWN = "all-rights-reserved", "unknown"
LICENSE_CLASSES = (OPEN, NC, ND, ALL_RIGHTS_RESERVED, UNKNOWN)
"""Classes a recipe may allow. A licence with both NC and ND is of the class nc-nd, which asks for both."""

_EDGE_CHARS = 2000
"""Where a page says whose it is: at its end, and by its title."""
_RESERVED = re.compile(
    r"all rights (?:are )?reserved|(?:版权|著作权|版權|著作權)(?:为[^。\n]{0,20}|為[^。\n]{0,20})?所有"
    r"|保留(?:所有|一切|全部)(?:权利|權利)"
    r"|未[经經](?:书面|書面|本站|本网|授[权權]|[许許]可|允[许許]|同意){1,4}[^。\n]{0,12}(?:不得|禁止|[严嚴]禁)[^。\n]{0,8}(?:[转轉][载載]|[复複][制製]|使用)",
    re.IGNORECASE,
)


def license_class(license_url: str | None, text: str) -> str | None:
    """`open`, `nc`, `nd` or `nc-nd` by the licence; without a known one, `all-rights-reserved` where the beginning or
    the end of the text says so in English or Chinese, else `unknown`; None where there is no text either.

    A known licence goes before such a sentence, which many pages carry beside it.
    """
    name = spdx(license_url)
    if name is not None:
        restrictions = {"NC", "ND"} & set(name.split("-"))
        if restrictions:
            return "-".join(sorted(restrictions)).lower()
        return OPEN if is_open(name) else UNKNOWN
    if not text:
        return None
    edges = text if len(text) <= 2 * _EDGE_CHARS else f"{text[:_EDGE_CHARS]}\n{text[-_EDGE_CHARS:]}"
    return ALL_RIGHTS_RESERVED if _may_reserve(edges) and _RESERVED.search(edges) else UNKNOWN


def _may_reserve(text: str) -> bool:
    """Has it a word that each of the sentences needs? Twenty times as fast as the search for these."""
    if "所有" in text or "保留" in text or "未" in text:
        return True
    return "reserved" in (text if text.islower() else text.lower())


def accepted_classes(allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that pass where a recipe allows some: nc-nd passes where both nc and nd do."""
    return (*allowed, NC_ND) if {NC, ND} <= set(allowed) else allowed
