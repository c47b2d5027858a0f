"""Every exception orc_trio raises on purpose.

The tree::

    OrcError
    ├── DisconnectedError(reason, certainty)    the connection ended before the call had its result
    ├── NoControllerError                       no connection: before attach, after detach
    ├── WrapperFunctionError(type, message)     the other end answered with an error instead of bytes
    ├── UnknownHandlerTagError(tag)             the other end has nothing registered under that tag or address
    ├── CallRefusedError                        declined before it started, by either end
    ├── NestingLimitError                       too many calls made from within calls
    ├── MessageTooLargeError(size, limit)       it would not fit; nothing was sent
    ├── KeepaliveDeniedError                    the session is shutting down
    ├── LocalProtocolError                      this side asked for something the protocol does not allow
    ├── RemoteProtocolError                     the peer sent something the protocol does not allow
    └── ConnectionSpecError                     a connection spec that cannot be understood or used (also a ValueError)

Local and remote protocol errors are told apart because they have different culprits: the first is a bug in the code
that calls us, the second a bug (or an attack) at the other end.
"""

from __future__ import annotations

from collections.abc import Callable

from orc_trio.reasons import Certainty, DisconnectReason

__all__ = [
    "CallRefusedError",
    "ConnectionSpecError",
    "DisconnectedError",
    "KeepaliveDeniedError",
    "LocalProtocolError",
    "MessageTooLargeError",
    "NestingLimitError",
    "NoControllerError",
    "OrcError",
    "RemoteProtocolError",
    "UnknownHandlerTagError",
    "WrapperFunctionError",
]


class OrcError(Exception):
    """The base of everything orc_trio raises on purpose."""


class DisconnectedError(OrcError):
    """The connection ended before the call had its result, or was ending when the call was made (G4, G11, G21).

    Attributes:
        reason: Why the connection stopped being open.
        certainty: Whether the call may have run.
    """

    def __init__(self, reason: DisconnectReason, certainty: Certainty) -> None:
        super().__init__(reason, certainty)
        self.reason = reason
        self.certainty = certainty

    def __str__(self) -> str:
        return f"{self.reason}; the call: {self.certainty.value}"


class NoControllerError(OrcError):
    """There is no connection: it was not made yet, or it is over (G21).  Nothing was sent."""


class WrapperFunctionError(OrcError):
    """An out-of-band error: the function answered with an error instead of bytes (G10).

    Raised by a handler or wrapper function on purpose, it carries its message to the caller at the other end.  Any
    *other* exception arrives there as ``HandlerFailed`` with no details (G9); so does one that the function got from a
    call on *another* connection and let escape: to pass that on, raise a new one.

    Attributes:
        remote_type: A short name a program can compare, for example ``"DeadlineExceeded"``.
        message: Text for people.
    """

    _origin: Callable[[], object] | None = None  # a weak reference to the connection it came by

    def __init__(self, remote_type: str, message: str = "") -> None:
        super().__init__(remote_type, message)
        self.remote_type = remote_type
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        # In another process it has come by no connection of that one.
        return type(self), self.args, {name: value for name, value in vars(self).items() if name != "_origin"}

    def __str__(self) -> str:
        return f"{self.remote_type}: {self.message}" if self.message else self.remote_type


class UnknownHandlerTagError(OrcError):
    """The other end has nothing registered under that handler tag or executor address (G9)."""

    def __init__(self, tag: int) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return f"nothing is registered at the other end under {self.tag:#x}"


class CallRefusedError(OrcError):
    """The call was declined before it started, and the connection lives on.  It has not run; trying elsewhere is safe.

    The other end declined it, or this one, which stops softly and takes no new calls.

    Raised by a handler's dispatcher (never by a handler that already did something) it refuses a call.
    """


class NestingLimitError(OrcError):
    """A call made while serving a call found the agreed budget of nested calls used up (G7).  Nothing was sent."""


class MessageTooLargeError(OrcError):
    """A payload larger than the agreed limit (G26).  Nothing was sent, and the connection lives on.

    Attributes:
        size: The payload's size, in bytes.
        limit: The largest the connection takes, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a payload of {self.size} bytes is over the agreed limit of {self.limit} bytes"


class KeepaliveDeniedError(OrcError):
    """A keepalive was asked for after the session's shutdown was requested (G22)."""


class LocalProtocolError(OrcError):
    """This side asked for something the protocol does not allow.  The culprit is the caller."""


class RemoteProtocolError(OrcError):
    """The peer sent something the protocol does not allow (G25).  The culprit is the other end."""


class ConnectionSpecError(OrcError, ValueError):
    """A connection spec that cannot be understood, or not be used here."""
