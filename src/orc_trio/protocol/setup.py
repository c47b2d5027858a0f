"""The setup message: what two ends tell each other before anything else.

Payload: a CBOR map with text keys.  Its shape is frozen for all versions, so that ends of different versions can
still say why they do not fit.  Unknown keys are ignored.

=============== =================================== ==========================================
key             value                               from
=============== =================================== ==========================================
``protocol``    ``"orc_trio"``                      both
``version``     1                                   both
``role``        ``"controller"`` or ``"executor"``  both
``limits``      map: one integer for each of        both
                `orc_trio.protocol.limits.AGREED_FIELDS`
``identity``    text for people                     both; optional
``triple``      text, for example                   executor
                ``x86_64-unknown-linux-gnu``
``page_size``   integer, bytes                      executor
``values``      map: text → byte string             executor
``symbols``     map: text → integer (address)       executor
=============== =================================== ==========================================

Refused: another protocol, another version, two ends of the same role, missing or mistyped keys, figures that do not
fit together.  Every refusal says what was wrong in words both sides can read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from orc_trio.exceptions import LocalProtocolError, RemoteProtocolError
from orc_trio.protocol.limits import AGREED_FIELDS, Limits
from orc_trio.wire.cbor import dumps, loads_strict
from orc_trio.wire.framing import FIRST_MESSAGE_MAX
from orc_trio.wire.messages import U64_MAX

__all__ = ["PROTOCOL", "VERSION", "Role", "Setup", "decode_setup", "encode_setup"]

PROTOCOL: Final = "orc_trio"
VERSION: Final = 1
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Role(enum.Enum):
    """Which of the two ends one is."""

    CONTROLLER = "controller"
    EXECUTOR = "executor"

    @property
    def other(self) -> Role:
        """The role the peer must have."""
        return Role.EXECUTOR if self is Role.CONTROLLER else Role.CONTROLLER


@attrs.frozen(kw_only=True)
class Setup:
    """What one end says about itself.

    Attributes:
        role: Which end it is.
        limits: Its figures for `AGREED_FIELDS`.
        identity: Who it is, for people.
        triple: The executor's target triple; "" from a controller.
        page_size: The executor's page size in bytes; 0 from a controller.
        values: The executor's bootstrap values.
        symbols: The executor's bootstrap symbols: name → address or tag.
    """

    role: Role
    limits: Mapping[str, int]
    identity: str = ""
    triple: str = ""
    page_size: int = 0
    values: Mapping[str, bytes] = _NOTHING
    symbols: Mapping[str, int] = _NOTHING

    @classmethod
    def of(cls, role: Role, limits: Limits, **more: Any) -> Setup:
        """The setup of an end with these limits."""
        return cls(role=role, limits={name: getattr(limits, name) for name in AGREED_FIELDS}, **more)


def encode_setup(setup: Setup) -> bytes:
    """The payload of the setup message.

    Raises:
        LocalProtocolError: It would be over 1 MiB.
    """
    fields: dict[str, Any] = {
        "protocol": PROTOCOL,
        "version": VERSION,
        "role": setup.role.value,
        "limits": dict(setup.limits),
        "identity": setup.identity,
    }
    if setup.role is Role.EXECUTOR:
        fields |= {
            "triple": setup.triple,
            "page_size": setup.page_size,
            "values": dict(setup.values),
            "symbols": dict(setup.symbols),
        }
    payload = dumps(fields)
    if len(payload) > FIRST_MESSAGE_MAX:
        raise LocalProtocolError(f"the setup message would have {len(payload)} bytes; {FIRST_MESSAGE_MAX} is the limit")
    return payload


def decode_setup(payload_untrusted: bytes | memoryview, *, expect: Role) -> Setup:
    """Read the peer's setup message.

    Args:
        payload_untrusted: Its payload.
        expect: The role the peer must have.

    Raises:
        RemoteProtocolError: It does not fit; the message says how.  The peer's fault, or a version mismatch.
    """
    if len(payload_untrusted) > FIRST_MESSAGE_MAX:
        raise RemoteProtocolError(f"setup: {len(payload_untrusted)} bytes; {FIRST_MESSAGE_MAX} is the limit")
    fields = loads_strict(payload_untrusted, what="setup")
    if not isinstance(fields, dict) or fields.get("protocol") != PROTOCOL:
        raise RemoteProtocolError("the peer does not speak the orc_trio protocol")
    version = _get(fields, "version", int)
    if version != VERSION:
        raise RemoteProtocolError(f"the peer speaks version {version} of the protocol, this end version {VERSION}")
    role = _get(fields, "role", str)
    if role != expect.value:
        raise RemoteProtocolError(f"the peer is {_quote(role)}, but this end needs one that is {expect.value!r}")
    limits = _get(fields, "limits", dict)
    figures = {name: _get(limits, name, int) for name in AGREED_FIELDS}
    identity = _get(fields, "identity", str, default="")
    if expect is Role.CONTROLLER:
        return Setup(role=expect, limits=figures, identity=identity)
    return Setup(
        role=expect,
        limits=figures,
        identity=identity,
        triple=_get(fields, "triple", str),
        page_size=_get(fields, "page_size", int),
        values=_get_map(fields, "values", bytes),
        symbols=_get_map(fields, "symbols", int),
    )


def _get(fields: dict[str, Any], name: str, kind: type, *, default: Any = None) -> Any:
    value = fields.get(name, default)
    _check(name, value, kind)
    return value


def _get_map(fields: dict[str, Any], name: str, kind: type) -> Mapping[str, Any]:
    found = _get(fields, name, dict)
    for key, value in found.items():
        _check(f"a name in {name}", key, str)
        _check(f"{name}[{_quote(key)}]", value, kind)
    return MappingProxyType(found)


def _check(name: str, value: object, kind: type) -> None:
    if type(value) is not kind:
        raise RemoteProtocolError(f"setup: {name} must be {kind.__name__}, not {type(value).__name__}")
    if kind is int and not 0 <= value <= U64_MAX:  # type: ignore[operator]
        raise RemoteProtocolError(f"setup: {name} is out of range")


def _quote(text: str) -> str:
    return repr(text[:64])
