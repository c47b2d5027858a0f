"""What ``--help`` says.  A backspace on a line of its own keeps click from joining the lines of that paragraph."""

from __future__ import annotations

from typing import Final

__all__ = ["BENCH", "CALL", "CONFORMANCE", "DECODE", "EXECUTOR", "EXIT_CODES", "MAIN", "RUN", "RUN_EXIT_CODES"]

EXIT_CODES: Final = """\b
Exit codes:
  0    it went well
  1    call: the function answered with an error; decode: malformed input;
       conformance: a check failed or hung; bench: worse than before
  2    the command line is wrong, or a file cannot be read
  3    no connection came about, or it ended before its time
  130  Ctrl-C (143: terminated, 141: nobody reads the output)
orc-trio run gives its program's exit status; see orc-trio run --help."""

RUN_EXIT_CODES: Final = """\b
Exit codes: the program's own status; or
  2        the command line is wrong
  125      orc-trio could not do its part: no executor, connection lost
  126      the program cannot be compiled or loaded
  127      there is no such file
  128 + n  signal n killed the program (139: SIGSEGV, 134: SIGABRT);
           Ctrl-C: 130"""

_SPECS: Final = """\b
SPEC says where the other end is:
  unix:connect=PATH        unix:listen=PATH
  tcp:connect=HOST:PORT    tcp:listen=HOST:PORT    (port 0: any)
  socket:adopt=FD          pipe:adopt=IN,OUT       (inherited descriptors)
A Unix socket's peer must be your own user, or root. TCP cannot tell who is
there: say --vetted unchecked if whoever can reach the address may take part."""

MAIN: Final = """Run code in another process, call it and be called back, and know exactly how it ended.

\b
Start here:
  orc-trio run program.ll                 run LLVM IR (or .bc, .o, .c) in an executor process
  orc-trio executor unix:listen=/tmp/x    be an executor, for one controller;
  orc-trio call unix:connect=/tmp/x       in another terminal: ask what it offers
  orc-trio run --trace t program.ll       write down every message,
  orc-trio decode t                       and read it
  orc-trio conformance my_tests:my_pairs  check a controller access of your own
  orc-trio bench                          measure how fast it is here
"""

BENCH: Final = """Measure calls over this library against the least that Trio needs for the same bytes.

Each line compares two things that were measured side by side, in turns: what is before the slash, as a multiple of what
is behind it. "floor" is a ping-pong over Trio's socket streams without any logic, over as many connections as there are
calls in flight. A speed of 2 is twice as many calls in a second; a CPU of 2 is twice the processor time for each, of
both processes together. "64 × 1 KiB" is 64 calls in flight, of 1 KiB there and 1 KiB back. "skeleton" is an RPC library
without anything but its tasks.

Then: how long small calls take beside large ones; and how cost grows with calls, bytes and connections. All of it takes
some ten minutes; the machine should do nothing else.

\b
Examples:
  orc-trio bench
  orc-trio bench --only "1 × 1 KiB" --json results.json
  orc-trio bench --only growth --plot growth.svg
  orc-trio bench --compare results.json
"""

RUN: Final = """Run PROGRAM in an executor process: LLVM IR (.ll, .bc), an object (.o), or C (.c).

It is compiled here, for the executor's machine, and its main is called with ARGS. It reads this stdin and writes this
stdout and stderr; its exit status is ours. When it crashes, one line on stderr says of what.

A program can call back two handlers (see orc_trio.h): "log" writes a line to our stderr, "input" answers with a line of
our stdin, empty at the end. With --spec these work from afar, while stdin and stdout are the executor's.

\b
Examples:
  orc-trio run mandelbrot.ll 200 > picture.pgm
  orc-trio run -O3 --trace t nbody.c 100000
  orc-trio run --spec unix:connect=/tmp/x program.o
"""

EXECUTOR: Final = f"""Be an executor: run what a controller sends, until it hangs up.

It serves one controller, then exits: each orc-trio call needs a new one. WHOEVER CAN CONNECT CAN RUN CODE AS YOU:
prefer Unix sockets.

\b
Examples:
  orc-trio executor unix:listen=/run/user/1000/orc.sock
  orc-trio executor --wrappers my_functions:echo unix:listen=/tmp/x
  orc-trio executor --vetted unchecked tcp:listen=127.0.0.1:0

{_SPECS}"""

CALL: Final = f"""Call the function SYMBOL of the executor at SPEC once, and show its answer.

SYMBOL is one of the executor's symbols, or an address like 0x7f001000. Without SYMBOL: list what there is.

An orc-trio executor exits after that: start another one for the next call.

\b
Examples:
  orc-trio call unix:connect=/tmp/x
  orc-trio call unix:connect=/tmp/x echo --data hello
  orc-trio call unix:connect=/tmp/x thumbnail --file in.png > out.png

{_SPECS}"""

DECODE: Final = """Show a trace (of --trace) or a raw capture of one direction as readable lines.

FILE may be -, for stdin.

\b
Examples:
  orc-trio run --trace t program.ll; orc-trio decode t
  orc-trio decode --bytes 1000 t | grep result
"""

CONFORMANCE: Final = """Check controller accesses against the guarantees G1 to G26, and show a table of the verdicts.

FACTORY is a function in MODULE that gives an async context manager of an orc_trio.testing.AccessPair; the current
directory is searched first. Several are shown beside each other. The checks run in a process of their own, so that one
that hangs or crashes costs its own verdict only.

\b
Examples:
  orc-trio conformance my_tests:my_pairs
  orc-trio conformance --only G4 --only G12 my_tests:my_pairs
  orc-trio conformance --html report.html my_tests:over_tcp my_tests:over_pipes
"""
