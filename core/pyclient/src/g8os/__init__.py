"""Commands a g8os node.

from g8os import Client
with Client.connect("redis://:password@10.0.0.1:6379") as cl:
    print(cl.system("uname -a").check().stdout)
"""

from .address import Address
from .aio import AsyncClient, AsyncContainerClient, AsyncResponse
from .client import Client, ContainerClient, Response
from .errors import (
    BadArguments,
    Conflict,
    ConnectionError,
    DuplicateId,
    Forbidden,
    G8Error,
    InvalidArgument,
    JobError,
    JobKilled,
    JobNotFound,
    JobTimeout,
    NodeError,
    NotFound,
    NotSupported,
    Precondition,
    ProtocolError,
    TimeoutError,
    Unauthorized,
    Unavailable,
    UnknownCommand,
)
from .result import Result
from .stream import Message

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AsyncClient",
    "AsyncContainerClient",
    "AsyncResponse",
    "BadArguments",
    "Client",
    "Conflict",
    "ConnectionError",
    "ContainerClient",
    "DuplicateId",
    "Forbidden",
    "G8Error",
    "InvalidArgument",
    "JobError",
    "JobKilled",
    "JobNotFound",
    "JobTimeout",
    "Message",
    "NodeError",
    "NotFound",
    "NotSupported",
    "Precondition",
    "ProtocolError",
    "Response",
    "Result",
    "TimeoutError",
    "Unauthorized",
    "Unavailable",
    "UnknownCommand",
]
