"""Names of the cases."""


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: packed data holds the time of packing, and every process must collect the same names."""
    return f"{len(val)}bytes" if isinstance(val, bytes) else None
