"""The review page: what each rule drops and keeps, for a person to judge, as one file without a server."""

from flows.review.page import render_page, write_page

__all__ = ["render_page", "write_page"]
