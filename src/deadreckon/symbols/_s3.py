"""Files from an S3 bucket, or from a store that speaks its protocol, by boto3 (the extra ``s3``).

Credentials, region and endpoint are those that boto3 finds: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL_S3`` and so on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deadreckon.errors import MissingDependency
from deadreckon.symbols._transfer import BLOCK, Absent, Refused, Transient, Unreachable, counted, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.config import RemoteLimits, SourceConfig
    from deadreckon.symbols._transfer import Clock

__all__ = ["S3"]

_ABSENT = frozenset({"NoSuchKey", "404"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"})


class S3:
    """Gets the objects below one prefix of a bucket."""

    def __init__(self, source: SourceConfig, limits: RemoteLimits) -> None:
        parts = urlsplit(source.url)
        self._bucket = parts.netloc
        prefix = unquote(parts.path).strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._limits = limits
        self._lock = threading.Lock()
        self._client: Any = None
        self._owner = 0

    def hang_up(self) -> None:
        """Close the client's connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            client.close()

    @contextlib.contextmanager
    def get(self, path: str, clock: Clock) -> Iterator[Iterator[bytes]]:
        """See ``Transfer.get``."""
        client = self._connected()
        clock.left(0)
        with _translated():
            answer = client.get_object(Bucket=self._bucket, Key=self._prefix + path)
        with contextlib.closing(answer["Body"]) as body:
            blocks = counted(self._blocks(body, clock), self._limits.max_bytes)
            yield counted(decoded(blocks, answer.get("ContentEncoding")), self._limits.max_bytes)

    def _blocks(self, body: Any, clock: Clock) -> Iterator[bytes]:
        while True:
            clock.left(0)
            with _translated():
                block = body.read(BLOCK)
            if not block:
                return
            yield block

    def _connected(self) -> Any:
        try:
            import boto3  # noqa: PLC0415
            from botocore.config import Config  # noqa: PLC0415
        except ImportError as e:
            raise MissingDependency("boto3", "pip install 'deadreckon[s3]'") from e
        limits = self._limits
        with self._lock:
            if self._client is None or self._owner != os.getpid():
                config = Config(
                    connect_timeout=limits.connect_seconds,
                    read_timeout=limits.read_seconds,
                    retries={"total_max_attempts": 1},  # They are counted in one place, for every kind of source.
                    max_pool_connections=max(1, limits.parallel),
                )
                with _translated():
                    self._client = boto3.session.Session().client("s3", config=config)
                self._owner = os.getpid()
            return self._client


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn boto3's errors into ours."""
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.ClientError as e:
        code = str(e.response.get("Error", {}).get("Code", ""))
        status = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
        message = f"S3: {code or status}"
        if code in _ABSENT:
            raise Absent(message) from e
        raise (Transient if code in _BUSY or status == 429 or status >= 500 else Refused)(message) from e
    except (exceptions.ConnectTimeoutError, exceptions.HTTPClientError, exceptions.IncompleteReadError) as e:
        raise Transient(f"S3: {e}") from e
    except (exceptions.BotoCoreError, ValueError) as e:
        raise Unreachable(f"S3: {e}") from e  # No host, no credentials, no region, a bucket that can't be one.
