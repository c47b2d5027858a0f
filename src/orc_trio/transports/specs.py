"""Connection specs: one line of text that says how to reach the other end.

Format
------
::

    transport[:action]=descriptor

    tcp:connect=127.0.0.1:9000      unix:connect=/run/x.sock     socket:adopt=3
    tcp:listen=[::1]:0              unix:listen=/run/x.sock      pipe:adopt=0,1

Rules
-----
* Only the text before the first ``=`` is searched for ``:``; so a descriptor may contain both.
* Transport and action are names: letters, digits, ``_``, ``-``, ``.``, beginning with a letter.  A missing
  action is not the same as an empty one; what it means is up to whoever looks the spec up
  (`ConnectorRegistry`).
* The descriptor is not read here: it belongs to the connector of that transport and action.
* ``str()`` gives back exactly the text that was parsed.

A spec is a value: making one opens nothing.  It does not say why the other end can be trusted either: that is
the caller's to decide, not the text's (see `VettedPeer`).
"""

from __future__ import annotations

import re
from typing import Final, Self

import attrs

from orc_trio.exceptions import ConnectionSpecError

__all__ = ["ConnectionSpec"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_SHAPE: Final = "transport[:action]=descriptor, for example tcp:connect=127.0.0.1:9000"


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConnectionSpecError(f"{name!r} cannot be {what}: a name is a letter, then letters, digits, '_', '-', '.'")


def _transport(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    _check_name("a transport", value)


def _action(_instance: object, _attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None:
        _check_name("an action", value)


@attrs.frozen
class ConnectionSpec:
    """How to reach the other end: ``transport[:action]=descriptor``.

    Attributes:
        transport: For example ``"tcp"``.
        action: For example ``"listen"``; None if the text has none.
        descriptor: For example ``"127.0.0.1:9000"``.  May be empty, if the connector has no use for it.

    Raises:
        ConnectionSpecError: Transport or action is not a name.
    """

    transport: str = attrs.field(validator=_transport)
    action: str | None = attrs.field(validator=_action)
    descriptor: str = attrs.field(validator=attrs.validators.instance_of(str))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a spec.

        Args:
            text: For example ``"unix:listen=/run/x.sock"``.  Nothing is stripped: spaces count.

        Raises:
            ConnectionSpecError: It is not a spec; the one-line message says what would be.
        """
        head, equals, descriptor = text.partition("=")
        if not equals:
            raise ConnectionSpecError(f"{text!r} is not a connection spec: it has no '='; write {_SHAPE}")
        transport, colon, action = head.partition(":")
        if not transport:
            raise ConnectionSpecError(f"{text!r} has no transport before the '='; write {_SHAPE}")
        if colon and not action:
            raise ConnectionSpecError(
                f"{text!r} has nothing between ':' and '='; write {_SHAPE}, or leave out the ':' too"
            )
        if ":" in action:
            raise ConnectionSpecError(f"{text!r} has more than one ':' before the '='; write {_SHAPE}")
        try:
            return cls(transport, action if colon else None, descriptor)
        except ConnectionSpecError as exc:
            raise ConnectionSpecError(f"{text!r} is not a connection spec: {exc}") from None

    @property
    def key(self) -> str:
        """``transport`` or ``transport:action``, as it is written before the ``=``."""
        return self.transport if self.action is None else f"{self.transport}:{self.action}"

    def __str__(self) -> str:
        return f"{self.key}={self.descriptor}"
