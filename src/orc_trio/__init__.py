"""Trio-native bidirectional RPC between a controller and an executor.

The executor runs code that was handed to it; the controller decides what runs, and serves the few entry points that
running code may call back.  Stop it at any moment, from anywhere, and know exactly what happened to every call.

Start with `open_executor_process`, or with `open_controller` at one end of a stream and `open_session` at the other.
"""

from orc_trio.abc import AccessHost, ControllerAccess, MessageTransport, Service
from orc_trio.access import StreamControllerAccess
from orc_trio.bootstrap import BootstrapInfo
from orc_trio.controller import Controller, open_controller
from orc_trio.exceptions import (
    CallRefusedError,
    ConnectionSpecError,
    DisconnectedError,
    KeepaliveDeniedError,
    LocalProtocolError,
    MessageTooLargeError,
    NestingLimitError,
    NoControllerError,
    OrcError,
    RemoteProtocolError,
    UnknownHandlerTagError,
    WrapperFunctionError,
)
from orc_trio.executor import open_attached_session, run_executor
from orc_trio.keepalives import Keepalive
from orc_trio.launch import ExecutorProcess, open_executor_process
from orc_trio.protocol.limits import Limits
from orc_trio.reasons import Certainty, DisconnectKind, DisconnectReason
from orc_trio.registry import ExecutorAddress, Handler, HandlerRegistry, HandlerTag, WrapperTable
from orc_trio.session import Session, open_session
from orc_trio.statistics import ConnectionStatistics, SessionState, SessionStatistics
from orc_trio.streams import StreamTransport
from orc_trio.threads import ControllerPortal, SessionPortal
from orc_trio.transports import ConnectionSpec, VettedPeer, in_process_pair, open_connection
from orc_trio.transports.process import ProcessTransport

__all__ = [
    "AccessHost",
    "BootstrapInfo",
    "CallRefusedError",
    "Certainty",
    "ConnectionSpec",
    "ConnectionSpecError",
    "ConnectionStatistics",
    "Controller",
    "ControllerAccess",
    "ControllerPortal",
    "DisconnectKind",
    "DisconnectReason",
    "DisconnectedError",
    "ExecutorAddress",
    "ExecutorProcess",
    "Handler",
    "HandlerRegistry",
    "HandlerTag",
    "Keepalive",
    "KeepaliveDeniedError",
    "Limits",
    "LocalProtocolError",
    "MessageTooLargeError",
    "MessageTransport",
    "NestingLimitError",
    "NoControllerError",
    "OrcError",
    "ProcessTransport",
    "RemoteProtocolError",
    "Service",
    "Session",
    "SessionPortal",
    "SessionState",
    "SessionStatistics",
    "StreamControllerAccess",
    "StreamTransport",
    "UnknownHandlerTagError",
    "VettedPeer",
    "WrapperFunctionError",
    "WrapperTable",
    "in_process_pair",
    "open_attached_session",
    "open_connection",
    "open_controller",
    "open_executor_process",
    "open_session",
    "run_executor",
]
