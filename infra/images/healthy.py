"""Whether a service is well: exit 0 or 1, for health checks in an image that has no curl.

healthy.py URL                      it answers 200 within five seconds
healthy.py --reads-events FILE      Prefect's background services read their events: FILE holds the broker's URL
"""

import sys
import urllib.request

_ANSWER_SECONDS = 5
_MAX_IDLE_SECONDS = 60
_STREAM, _GROUP = "events", "event-persister"


def main(arguments: list[str]) -> None:
    """Check what the arguments name."""
    if arguments[0] == "--reads-events":
        reads_events(arguments[1])
    else:
        with urllib.request.urlopen(arguments[0], timeout=_ANSWER_SECONDS):  # an error answer raises
            pass


def reads_events(url_file: str) -> None:
    """Fail where nobody has asked the broker for events for a minute: its reader asks once a second."""
    from redis import Redis

    with open(url_file, encoding="utf-8") as file, Redis.from_url(file.read().strip(), socket_timeout=5) as broker:
        idle = [reader["idle"] / 1000 for reader in broker.xinfo_consumers(_STREAM, _GROUP)]
    if not idle or min(idle) > _MAX_IDLE_SECONDS:
        raise SystemExit(f"got readers idle for {idle} seconds, wanted one below {_MAX_IDLE_SECONDS}: restart it.")


if __name__ == "__main__":
    main(sys.argv[1:])
