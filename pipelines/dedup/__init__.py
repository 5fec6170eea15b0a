"""Which documents stay: duplicates, near-duplicates, superseded and withdrawn versions, and the split of each."""

from pipelines.dedup.bands import BANDS_STAGE, INDEX_STAGE, BandsConfig, IndexConfig
from pipelines.dedup.config import DedupConfig
from pipelines.dedup.lines import LINES_STAGE, LinesConfig
from pipelines.dedup.near import NEAR_STAGE, NearConfig
from pipelines.dedup.outcomes import DEDUP, OutcomesConfig, dedup_reading
from pipelines.dedup.versions import SUPERSEDED, WITHDRAWING_REASONS, WITHDRAWN

__all__ = [
    "BANDS_STAGE",
    "DEDUP",
    "INDEX_STAGE",
    "LINES_STAGE",
    "NEAR_STAGE",
    "SUPERSEDED",
    "WITHDRAWING_REASONS",
    "WITHDRAWN",
    "BandsConfig",
    "DedupConfig",
    "IndexConfig",
    "LinesConfig",
    "NearConfig",
    "OutcomesConfig",
    "dedup_reading",
]
