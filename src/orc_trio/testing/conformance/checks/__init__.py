"""The checks, one for each guarantee, by chapter: calls, the end, the session, bad input."""

from orc_trio.testing.conformance.checks.bad_input import (
    check_any_bytes,
    check_too_large,
)
from orc_trio.testing.conformance.checks.disconnecting import check_disconnect_is_for_everyone
from orc_trio.testing.conformance.checks.ending import check_one_cause_one_end
from orc_trio.testing.conformance.checks.errors import (
    check_errors_are_not_bytes,
    check_only_registered_tags,
)
from orc_trio.testing.conformance.checks.lasting import (
    check_bounded,
    check_killed_peers_are_noticed,
    check_reasons_arrive,
)
from orc_trio.testing.conformance.checks.leaving import (
    check_cancelling_the_owner,
    check_quiet,
)
from orc_trio.testing.conformance.checks.serving import (
    check_back_pressure,
    check_deadlines,
    check_reader_never_waits,
)
from orc_trio.testing.conformance.checks.sessions import (
    check_calls_outside_a_conversation,
    check_shutdown_waits_for_keepalives,
    check_states_go_forward,
)
from orc_trio.testing.conformance.checks.settling import (
    check_cancellation_travels,
    check_certainty,
    check_exactly_once,
    check_one_step,
    check_whole_frames,
)
from orc_trio.testing.conformance.checks.shutting_down import (
    check_services,
    check_shutdown_is_for_everyone,
)
from orc_trio.testing.conformance.checks.terminal import (
    check_order_of_the_end,
    check_terminal_state,
)

__all__ = [
    "check_any_bytes",
    "check_back_pressure",
    "check_bounded",
    "check_calls_outside_a_conversation",
    "check_cancellation_travels",
    "check_cancelling_the_owner",
    "check_certainty",
    "check_deadlines",
    "check_disconnect_is_for_everyone",
    "check_errors_are_not_bytes",
    "check_exactly_once",
    "check_killed_peers_are_noticed",
    "check_one_cause_one_end",
    "check_one_step",
    "check_only_registered_tags",
    "check_order_of_the_end",
    "check_quiet",
    "check_reader_never_waits",
    "check_reasons_arrive",
    "check_services",
    "check_shutdown_is_for_everyone",
    "check_shutdown_waits_for_keepalives",
    "check_states_go_forward",
    "check_terminal_state",
    "check_too_large",
    "check_whole_frames",
]
