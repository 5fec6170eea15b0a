"""Whether a service is well: exit 0 or 1, for health checks in an image that has no curl.

healthy.py URL                              it answers 200 within five seconds
healthy.py --reads-events FILE [SECONDS]    Prefect's background services read their events: FILE holds the broker's URL,
                                            and no event waits for longer than that (60 s)
"""

import sys
import urllib.request
from pathlib import Path

_ANSWER_SECONDS = 5
_WAIT_SECONDS = 60.0
_STREAM, _GROUP = "events", "event-persister"


def main(arguments: list[str]) -> None:
    """Check what the arguments name."""
    if arguments[0] == "--reads-events":
        reads_events(Path(arguments[1]), float(arguments[2]) if len(arguments) > 2 else _WAIT_SECONDS)
    else:
        with urllib.request.urlopen(arguments[0], timeout=_ANSWER_SECONDS):  # an error answer raises
            pass


def reads_events(url_file: Path, max_seconds: float) -> None:
    """Fail where an event waits for the reader that writes them into the database, or where that never came.

    How long a reader has been idle would tell more, but brokers differ in what they count as that.
    """
    from redis import Redis

    with Redis.from_url(url_file.read_text(encoding="utf-8").strip(), socket_timeout=_ANSWER_SECONDS) as broker:
        groups = {group["name"].decode(): group["last-delivered-id"].decode() for group in broker.xinfo_groups(_STREAM)}
        waiting = broker.xrange(_STREAM, min=f"({groups[_GROUP]}", count=1)
        seconds = broker.time()[0] - int(waiting[0][0].split(b"-")[0]) / 1000 if waiting else 0.0
    if seconds > max_seconds:
        raise SystemExit(
            f"got an event that waits for {seconds:.0f} seconds, wanted {max_seconds:.0f} at most: restart it."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
