"""The edge to redis-py: what it is told, and what its errors mean.

redis-py must not retry by itself: it would do so for blocking operations too, and hide for how long. `Mender` decides
instead, the same way for both clients. The types of redis-py change from version to version; they end here.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions as wrong
import redis.retry

from .address import Address
from .errors import ConnectionError, G8Error, NodeError, Unauthorized
from .steps import SOCKET_TIMEOUT_SECONDS
from .wire import DEFAULT_USER

CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 64
PLACE_SECONDS = 60.0
"""How long an operation waits for a connection that is free."""
RECONNECT_SECONDS = 10.0
"""For how long a connection that worked is mended: a node restarts its redis within 3 s."""

_FIRST_DELAY = 0.05
_MAX_DELAY = 1.0

_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM")


def pool(address: Address, max_connections: int) -> Any:
    """A `redis.ConnectionPool`. Who uses it takes a place of a semaphore first: a full pool fails instead of waiting."""
    library: Any = redis
    retry = library.retry.Retry(library.backoff.NoBackoff(), 0)
    return library.ConnectionPool(**_options(library, address, max_connections, retry))


def async_pool(address: Address, max_connections: int) -> Any:
    """The same for `redis.asyncio`, whose own pool that waits hangs when a node is not there (redis-py before 5.1)."""
    library: Any = redis
    retry = library.asyncio.retry.Retry(library.backoff.NoBackoff(), 0)
    return library.asyncio.ConnectionPool(**_options(library.asyncio, address, max_connections, retry))


def _options(flavour: Any, address: Address, max_connections: int, retry: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "max_connections": max_connections,
        "retry": retry,
        "username": None if address.user == DEFAULT_USER else address.user,
        "password": address.password,
        "db": address.db,
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # The replies that `steps` and `stream` parse are those of RESP2.
        "protocol": 2,
    }
    if address.socket is not None:
        options |= {"connection_class": flavour.UnixDomainSocketConnection, "path": address.socket}
    else:
        kind = flavour.SSLConnection if address.tls else flavour.Connection
        options |= {"connection_class": kind, "host": address.host, "port": address.port, "socket_keepalive": True}
    if address.tls:
        # Before 6.0, redis-py took any certificate that somebody signed.
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    return options


def all_in_use(address: Address, max_connections: int) -> ConnectionError:
    return ConnectionError(
        f"all {max_connections} connections to {address} were in use for {PLACE_SECONDS:g} s",
        hint="raise max_connections, or let fewer wait at once",
    )


@dataclass(frozen=True)
class Failure:
    """An operation that failed."""

    error: Exception
    handled: BaseException | None
    """What the caller was handling when it began: no cause of ours, though Python chains them."""
    attempt: int
    failing_for: float
    """Seconds since it failed first."""
    left: float | None
    """Seconds until nobody waits for it any more."""


class Mender:
    """Decides whether an operation that failed is sent again, and after how long."""

    def __init__(self, address: Address, reconnect: float) -> None:
        self._address = address
        self._reconnect = reconnect
        self._ever_worked = False

    def worked(self) -> None:
        self._ever_worked = True

    def delay(self, failure: Failure) -> float:
        """Seconds to wait before the next attempt; raises when there is to be none."""
        error, left = failure.error, failure.left
        meant = error if isinstance(error, G8Error) else meaning(error, self._address, failure.handled)
        if meant is error:
            raise meant
        # A node that was never there is not waited for: the address is wrong more often than the node is slow.
        if not isinstance(meant, ConnectionError) or not self._ever_worked or failure.failing_for >= self._reconnect:
            raise meant from error
        pause = min(_FIRST_DELAY * float(2 ** min(failure.attempt, 10)), _MAX_DELAY)
        if left is not None:
            if left <= 0:
                raise meant from error
            pause = min(pause, left)
        return pause


def meaning(error: Exception, address: Address, handled: BaseException | None = None) -> G8Error:
    """The error of ours that an error of redis-py or the system stands for."""
    text = str(error)
    # redis-py derives AuthenticationError from its ConnectionError, or hides it in one: the order matters.
    denied = _within(error, handled, wrong.AuthenticationError, wrong.NoPermissionError) is not None
    if denied or text.startswith(_DENIED) or "without any password configured" in text:
        return Unauthorized(
            f"{address} refuses user {address.user}: {text}",
            hint="check user and password; what a user may do is set on the node",
        )
    distrust = _within(error, handled, ssl.SSLCertVerificationError)
    if isinstance(distrust, ssl.SSLCertVerificationError):
        return ConnectionError(
            f"the certificate of {address} is not trusted: {distrust.verify_message}",
            hint="name its authority in SSL_CERT_FILE, and the node as its certificate does",
        )
    lost = (
        wrong.ConnectionError,
        wrong.TimeoutError,
        wrong.BusyLoadingError,
        OSError,
    )
    if isinstance(error, lost) or text.startswith("LOADING"):
        return ConnectionError(
            f"cannot reach the node at {address}: {text or type(error).__name__}",
            hint="is core0 running there, and the address right?",
        )
    if isinstance(error, wrong.OutOfMemoryError) or text.startswith("OOM"):
        return NodeError(f"the redis of {address} has no memory left: {text}", hint="wait until old results expire")
    return NodeError(f"the redis of {address} refused: {text}")


def _within(error: BaseException | None, handled: BaseException | None, *kinds: type[BaseException]) -> BaseException | None:
    """The error of one of these kinds that this one is, or was raised for: redis-py wraps errors, and not always in words."""
    for _ in range(8):
        if error is None or error is handled:
            return None
        if isinstance(error, kinds):
            return error
        error = error.__cause__ or error.__context__
    return None
