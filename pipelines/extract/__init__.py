"""PAGE -> DOCUMENT: the text and the metadata of each page."""

from pipelines.extract.stage import EXTRACT, ExtractConfig, extract_documents

__all__ = ["EXTRACT", "ExtractConfig", "extract_documents"]
