"""The careful path: trafilatura (Apache-2.0), for the few pages on which the fast path doubts its own result.

It compares several extractors and takes some twenty times as long, so it sees no page above the bounds below, which
count and never measure time. Barbaresi, Trafilatura: A Web Scraping Library and Command-Line Tool (ACL 2021).
"""

MAX_CHARS = 1 << 20
MAX_TAGS = 20_000


def careful_text(html: str) -> str:
    """Main text of a page of HTML, empty where there is none. Pages above MAX_CHARS or MAX_TAGS give an empty text."""
    if len(html) > MAX_CHARS or html.count("<") > MAX_TAGS:
        return ""
    import trafilatura  # takes 0.3 s, which runs without a doubtful page need not pay

    try:
        text = trafilatura.extract(html, favor_precision=True, fast=True, include_comments=False, deduplicate=False)
    except (ValueError, RecursionError):  # what lxml and its cleaner raise on a page that is none
        return ""
    return text or ""
