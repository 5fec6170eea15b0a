"""The page of a text as a model reads it: surprise, lens, attention, nearest documents, as one file without a server."""

from flows.model.interpret_page.page import TextFacts, render_page, text_facts, write_page

__all__ = ["TextFacts", "render_page", "text_facts", "write_page"]
