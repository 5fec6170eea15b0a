"""Which documents stay: duplicates, near-duplicates, superseded and withdrawn versions, and the split of each."""

from pipelines.dedup.bands import BANDS_STAGE, INDEX_STAGE, BandsConfig, IndexConfig
from pipelines.dedup.config import DedupConfig
from pipelines.dedup.near import NEAR_STAGE, NearConfig
from pipelines.dedup.outcomes import DEDUP, OutcomesConfig
from pipelines.dedup.versions import SUPERSEDED, WITHDRAWING_REASONS, WITHDRAWN

__all__ = [
    "BANDS_STAGE",
    "DEDUP",
    "INDEX_STAGE",
    "NEAR_STAGE",
    "SUPERSEDED",
    "WITHDRAWING_REASONS",
    "WITHDRAWN",
    "BandsConfig",
    "DedupConfig",
    "IndexConfig",
    "NearConfig",
    "OutcomesConfig",
]
