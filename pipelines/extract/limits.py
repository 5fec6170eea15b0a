"""Bounds on a page of HTML, judged by the scan of its source before a parser sees it."""

from pipelines.extract.scan import Scan

_MAX_ATTRIBUTE_WORK = 1 << 30
"""Sum, over the tags, of the squares of their numbers of attributes: a single tag may have 32,768 (about 2 s)."""


class TooDeepError(Exception):
    """Elements are nested deeper than the limit."""


class TooManyTagsError(Exception):
    """The parsed tree would take too much memory."""


class TooManyAttributesError(Exception):
    """A tag's attributes would take too long to compare with one another."""


def check_source(scan: Scan, *, max_tags: int) -> None:
    """Raise TooManyTagsError or TooManyAttributesError for what no parser should be given."""
    if scan.num_tags > max_tags or scan.num_elements > 2 * max_tags:
        raise TooManyTagsError
    if scan.attribute_work > _MAX_ATTRIBUTE_WORK:
        raise TooManyAttributesError
