# Campaigns on the whole thing, Trio shell included: random worlds, random schedules, faults; and every run is checked.
#
# `worlds` draws what may happen, `channel` is what may go wrong between the ends, `programs` are what the two ends do,
# `refine` checks each end's log against the protocol core's own rules, and `runs` puts them together, reproducibly from
# one number.
