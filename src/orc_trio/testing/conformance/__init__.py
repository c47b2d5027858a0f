"""The conformance kit: checks of a controller access against the guarantees G1 to G26.

What is put on the bench is in `pair`, made from two connected ends by `stream_pairs`.  The checks, one for each
guarantee, are in `checks`, and work at a `bench` with a `rig`.  They are run by `runner`, by the pytest plugin, or by
``orc-trio conformance``, and what they find is in a `report`.
"""

from orc_trio.testing.conformance.bench import Hung
from orc_trio.testing.conformance.checks import (
    check_any_bytes,
    check_back_pressure,
    check_bounded,
    check_calls_outside_a_conversation,
    check_cancellation_travels,
    check_cancelling_the_owner,
    check_certainty,
    check_deadlines,
    check_disconnect_is_for_everyone,
    check_errors_are_not_bytes,
    check_exactly_once,
    check_killed_peers_are_noticed,
    check_one_cause_one_end,
    check_one_step,
    check_only_registered_tags,
    check_order_of_the_end,
    check_quiet,
    check_reader_never_waits,
    check_reasons_arrive,
    check_services,
    check_shutdown_is_for_everyone,
    check_shutdown_waits_for_keepalives,
    check_states_go_forward,
    check_terminal_state,
    check_too_large,
    check_whole_frames,
)
from orc_trio.testing.conformance.pair import (
    AccessPair,
    ControllerEnd,
    Hook,
    NotApplicable,
    OpenController,
    PairFactory,
)
from orc_trio.testing.conformance.report import Outcome, Report, Subject, Verdict
from orc_trio.testing.conformance.runner import check_controller_access, run_conformance
from orc_trio.testing.conformance.stream_pairs import QUICK_LIMITS, pairs_of
from orc_trio.testing.conformance.suite import ConformanceTests, conformance_tests

__all__ = [
    "QUICK_LIMITS",
    "AccessPair",
    "ConformanceTests",
    "ControllerEnd",
    "Hook",
    "Hung",
    "NotApplicable",
    "OpenController",
    "Outcome",
    "PairFactory",
    "Report",
    "Subject",
    "Verdict",
    "check_any_bytes",
    "check_back_pressure",
    "check_bounded",
    "check_calls_outside_a_conversation",
    "check_cancellation_travels",
    "check_cancelling_the_owner",
    "check_certainty",
    "check_controller_access",
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
    "conformance_tests",
    "pairs_of",
    "run_conformance",
]
