"""What counts as a duplicate: the section `dedup` of a recipe."""

from dataclasses import dataclass

from pipelines.errors import ConfigError
from pipelines.schemas import MINHASH_NUM_PERMUTATIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupConfig:
    """What counts as a duplicate, and how much of what stays is held out."""

    exact: bool = True
    """Drop a document whose normalised text equals that of one that stays."""
    near: bool = True
    """Drop a document that shares most of its shingles with one that stays."""
    superseded: bool = True
    """Drop a version of a URL when a later fetch of it brought another text."""
    withdrawn: bool = True
    """Drop the versions of a URL that were fetched before it was withdrawn: an opt-out, a 404, a compliance rule. Holds
    whatever `superseded` says; to be off only where compliance is."""
    min_similarity: float = 0.8
    """Least Jaccard similarity of near-duplicates, 0 to 1: shared shingles of all their shingles, counted, not estimated."""
    num_bands: int = 22
    """Bands of the signature; two documents are compared if any band is equal. 22 x 5 finds 0.9998 of the pairs of
    similarity 0.8 (1 - (1 - s**5)**22); FineWeb's 14 x 8 finds 0.92."""
    rows_per_band: int = 5
    """Minima in a band."""
    max_line_repeats: int | None = 10
    """Documents of a host that may show the same line, the first seen; later ones lose it. None: lines are left alone."""
    min_line_bytes: int = 60
    """Bytes of UTF-8 that a line must have to be counted: about ten English words, twenty Chinese characters."""
    min_kept_line_ratio: float = 0.2
    """Share of a document's characters that must be left when repeated lines are cut; below it the document goes."""
    validation_ratio: float = 0.05
    """Expected share of documents held out for validation, 0 (none) to below 1."""
    test_ratio: float = 0.05
    """Expected share held out for the last measurement, likewise; with validation_ratio below 1."""
    split_seed: int = 0
    """Another seed is another split."""

    def __post_init__(self) -> None:
        if not 0 < self.min_similarity <= 1:
            raise ConfigError(
                f"got min_similarity {self.min_similarity}, wanted a share above 0 and up to 1: 0.8 is well tried."
            )
        if self.num_bands < 1 or self.rows_per_band < 1:
            raise ConfigError(
                f"got {self.num_bands} bands of {self.rows_per_band} rows, wanted at least one of each: "
                "22 and 5 are well tried."
            )
        if self.num_bands * self.rows_per_band > MINHASH_NUM_PERMUTATIONS:
            raise ConfigError(
                f"got {self.num_bands} bands of {self.rows_per_band} rows, wanted a product of at most "
                f"{MINHASH_NUM_PERMUTATIONS}: lower one of them."
            )
        if self.max_line_repeats is not None and self.max_line_repeats < 1:
            raise ConfigError(
                f"got max_line_repeats {self.max_line_repeats}, wanted at least 1, or null to leave lines alone."
            )
        if self.min_line_bytes < 1 or not 0 <= self.min_kept_line_ratio <= 1:
            raise ConfigError(
                f"got min_line_bytes {self.min_line_bytes} and min_kept_line_ratio {self.min_kept_line_ratio}, wanted "
                "at least 1, and a share from 0 to 1: 60 and 0.2 are usual."
            )
        for name in ("validation_ratio", "test_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"got {name} {getattr(self, name)}, wanted a share from 0 to below 1: 0.05 is usual.")
        if self.validation_ratio + self.test_ratio >= 1:
            raise ConfigError(
                f"got validation_ratio {self.validation_ratio} and test_ratio {self.test_ratio}, wanted a sum below 1: "
                "lower one of them, or nothing is trained on."
            )
