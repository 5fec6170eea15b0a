"""A process that serves S3 from memory on loopback: prints its port, ends with its standard input.

moto checks a condition and writes in two steps. Requests are served one after the other here, once each body has come in
whole, so that a condition holds as it does at a real store.
"""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.exceptions import BadRequest, ClientDisconnected
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wsgi import get_input_stream

_lock = threading.Lock()


class _Quiet(WSGIRequestHandler):
    def log(self, *_args: object) -> None:
        pass


def one_by_one(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            environ["wsgi.input"] = io.BytesIO(get_input_stream(environ).read())
        except ClientDisconnected:
            return BadRequest("half a body")(environ, start_response)
        with _lock:
            return list(app(environ, start_response))

    return wrapped


def main() -> None:
    os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "100"  # short pages, so that a few hundred objects are several
    app = one_by_one(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
