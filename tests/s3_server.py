"""As much of S3 as reading a folder takes, over a folder of this machine: objects, ranges of them, and listings."""

import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import s3fs


@contextlib.contextmanager
def s3_server(root: Path) -> Iterator[None]:
    """Serves the folders in `root` as buckets, `s3://...`, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
            bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
            path = root / bucket / key
            if "list-type" in query:
                self._send(200, _listing(root / bucket, query), "application/xml")
            elif path.is_file():
                self._send(200, path.read_bytes(), "binary/octet-stream")
            else:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")

        def _send(self, status: int, body: bytes, content_type: str) -> None:
            given = self.headers.get("Range")
            if status == 200 and given:
                first, _, last = given.removeprefix("bytes=").partition("-")
                body, status = body[int(first) : int(last) + 1 if last else None], 206
            self.send_response(status)
            for name, value in {"Content-Type": content_type, "Content-Length": len(body), "ETag": '"0"'}.items():
                self.send_header(name, str(value))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    s3fs.S3FileSystem.clear_instance_cache()  # one that knows another endpoint
    try:
        with mock.patch.dict(os.environ, environment):
            yield
    finally:
        server.shutdown()
        server.server_close()


def _listing(bucket: Path, query: dict[str, str]) -> bytes:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    keys, folders = [], set()
    for path in sorted(path for path in bucket.rglob("*") if path.is_file()):
        key = path.relative_to(bucket).as_posix()
        if not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.split(delimiter)[0] + delimiter)
        else:
            keys.append((key, path.stat().st_size))
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        '<ETag>"0"</ETag><StorageClass>STANDARD</StorageClass></Contents>'
        for key, size in keys
    )
    common = "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders))
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket.name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(keys) + len(folders)}</KeyCount>"
        f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"
    ).encode()
