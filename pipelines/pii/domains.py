"""The top-level domains: what the name of a site ends in."""

from functools import cache

import numpy as np

from pipelines.kept import Array, kept_arrays


@cache
def top_level_domains() -> frozenset[str]:
    """Those of the public suffix list's snapshot that comes with tldextract, as they are written and in Punycode."""
    made = kept_arrays("domains", _made_domains, modules=("pipelines.pii.domains",), libraries=("tldextract",))
    return frozenset(made["names"].tobytes().decode().split())


def _made_domains() -> dict[str, Array]:
    from tldextract import TLDExtract

    suffixes = TLDExtract(suffix_list_urls=(), cache_dir=None).tlds
    names = {suffix.rpartition(".")[2] for suffix in suffixes}
    names |= {name.encode("idna").decode() for name in names if not name.isascii()}
    return {"names": np.frombuffer("\n".join(sorted(names)).encode(), np.uint8)}
