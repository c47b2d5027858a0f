"""How fast the library is, against the least that Trio needs for the same bytes (``orc-trio bench``).

Theory
------
A machine's speed changes from minute to minute, and from machine to machine; a ratio of two things measured side by
side does not.  So everything is measured in pairs: a short slice of the one, a short slice of the other, in the order
A B B A, again and again, in several fresh pairs of processes; what is told is the median of the ratios of neighbours,
and how far apart they lie.

The floor (`orc_trio.bench.floor`) is a ping-pong over `trio.SocketStream` without any logic: what every program pays
that sends bytes through Trio's own streams and awaits the answer.

Rules
-----
* All guarantees are on: it is the connection as everybody gets it.
* Both ends do the same in both: the bytes come back as they were sent.
* With one call in flight both processes share a core (they never run at the same time); otherwise they have one each.
"""
