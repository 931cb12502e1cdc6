"""Requests to a viewer, also hostile ones."""

import http.client
import threading
from contextlib import contextmanager


@contextmanager
def served(server):
    """Serve on a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def fetch(server, path, *, method="GET", host=None, token=None):
    """(status, headers, body); ``path`` comes after the token."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        address = f"/{server.token if token is None else token}/{path}"
        connection._encode_request = lambda line: line.encode("latin-1")
        connection.putrequest(method, address, skip_host=True, skip_accept_encoding=True)
        for name in [f"127.0.0.1:{server.server_port}"] if host is None else host:
            connection.putheader("Host", name)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()
