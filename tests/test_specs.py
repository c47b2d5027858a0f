"""Connection specs: what is read, what is refused and how, and that nothing is lost."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orc_trio.exceptions import ConnectionSpecError, OrcError
from orc_trio.transports import ConnectionSpec

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.\-]*", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "transport", "action", "descriptor"),
    [
        ("tcp:connect=127.0.0.1:9000", "tcp", "connect", "127.0.0.1:9000"),
        ("tcp:listen=[::1]:0", "tcp", "listen", "[::1]:0"),
        ("unix:connect=/run/x.sock", "unix", "connect", "/run/x.sock"),
        ("unix:listen=a=b:c", "unix", "listen", "a=b:c"),
        ("socket:adopt=3", "socket", "adopt", "3"),
        ("pipe:adopt=0,1", "pipe", "adopt", "0,1"),
        ("shm=region", "shm", None, "region"),
        ("shm=with:colon", "shm", None, "with:colon"),
        ("x.y-z_1:a.b-c_2= spaces count ", "x.y-z_1", "a.b-c_2", " spaces count "),
        ("tcp:listen=", "tcp", "listen", ""),
        ("tcp:connect==", "tcp", "connect", "="),
    ],
)
def test_a_spec_is_transport_action_descriptor(text: str, transport: str, action: str | None, descriptor: str) -> None:
    """A spec is read as transport[:action]=descriptor, and str gives it back."""
    spec = ConnectionSpec.parse(text)
    assert (spec.transport, spec.action, spec.descriptor) == (transport, action, descriptor)
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no '='"),
        ("tcp", "it has no '='"),
        ("tcp:connect:127.0.0.1:9000", "it has no '='"),
        ("=x", "no transport before the '='"),
        (":connect=x", "no transport before the '='"),
        ("tcp:=x", "nothing between ':' and '='"),
        ("tcp:connect:now=x", "more than one ':' before the '='"),
        ("tcp::=x", "more than one ':' before the '='"),
        ("t cp:connect=x", "'t cp' cannot be a transport"),
        ("1tcp=x", "'1tcp' cannot be a transport"),
        ("tcp:con nect=x", "'con nect' cannot be an action"),
        ("tcp:é=x", "'é' cannot be an action"),
        ("tcp\n:connect=x", "cannot be a transport"),
    ],
)
def test_what_is_not_a_spec_is_refused_in_one_line(text: str, says: str) -> None:
    """G25: a text that is no spec is refused in one line that says what was wrong and what would be right."""
    with pytest.raises(ConnectionSpecError) as caught:
        ConnectionSpec.parse(text)
    message = str(caught.value)
    assert says in message
    assert repr(text) in message
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OrcError)


@given(NAMES, st.none() | NAMES, st.text())
def test_every_spec_survives_being_written_and_read(transport: str, action: str | None, descriptor: str) -> None:
    """parse(str(spec)) is spec, for every spec there can be."""
    spec = ConnectionSpec(transport, action, descriptor)
    assert ConnectionSpec.parse(str(spec)) == spec


@given(st.text(alphabet=string.printable) | st.text(alphabet="a:=,1"))
def test_any_text_is_a_spec_or_refused(text: str) -> None:
    """G25: any text is either a spec that is written the same way, or a ConnectionSpecError of one line."""
    refused = ""
    try:
        assert str(ConnectionSpec.parse(text)) == text
    except ConnectionSpecError as exc:
        refused = str(exc)
    assert "\n" not in refused


def test_a_spec_cannot_be_made_of_what_could_not_be_read_back() -> None:
    """A transport or action that is no name is refused however the spec is made."""
    for transport, action in [("", None), ("a:b", None), ("a=b", None), ("a", ""), ("a", "b=c")]:
        with pytest.raises(ConnectionSpecError):
            ConnectionSpec(transport, action, "x")
    with pytest.raises(TypeError):
        ConnectionSpec("a", None, 3)  # type: ignore[arg-type]


def test_key_is_what_stands_before_the_equals_sign() -> None:
    """The key is transport or transport:action."""
    assert ConnectionSpec("shm", None, "x").key == "shm"
    assert ConnectionSpec("tcp", "listen", "x").key == "tcp:listen"


def test_specs_are_values() -> None:
    """Equal specs are equal, hash alike, and cannot be changed."""
    one, other = ConnectionSpec.parse("a:b=c"), ConnectionSpec("a", "b", "c")
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.descriptor = "d"  # type: ignore[misc]
