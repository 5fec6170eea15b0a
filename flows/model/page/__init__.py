"""The page of a model: how it was trained, how good it is and what it rests on, as one file without a server."""

from flows.model.page.page import render_page, write_page

__all__ = ["render_page", "write_page"]
