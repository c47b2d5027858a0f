"""The lifeline: an executor process whose controller dies is killed by the kernel, whatever it is doing.

Theory
------
The launcher makes a pipe, keeps the only write end, and lets the executor inherit the read end.  `arm` asks the kernel
to send this process SIGKILL when something happens to that pipe.  Nobody ever writes to it, so all that can happen is
that the write end is closed: the controller is gone, however it went.  No code of ours has to run for that: it works
while native code is busy, while a thread holds the GIL, and while the process is stopped.

Not by PR_SET_PDEATHSIG: that signal comes when the *thread* that forked us ends, and Trio forks in a worker thread that
retires when it is idle.

Rules
-----
* Where the read end is, is said in the environment variable `VARIABLE`; `arm` removes it, so no program that we start
  takes the pipe for its own, and closes the descriptor to them (CLOEXEC).
* A lifeline that is cut already when it is armed kills at once.
* What the variable names must be the very pipe the launcher made: a number that came here by way of a process that
  knows nothing of lifelines may mean something else by now, and is left alone.
* It reaches this process alone.  What we start ourselves is ours to end.
* `tie` does the same from outside, for a program that knows nothing of lifelines.  Between its start and that call the
  controller's death is seen by the end of the stream only.
* A process forked from the controller, and not replaced by another program, has the write end too, and may hold the
  line after the controller's death.  Start processes, do not fork them.
* There is no goodbye: services are not told.  The controller closes the pipe only after it has seen us exit, so this
  is the end of those whose controller crashed or was killed.

It imports nothing of orc_trio: call `arm` as early as you like.  Linux only; elsewhere it does nothing, and an executor
learns of its controller's death by the end of the stream.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import sys
from typing import Final

__all__ = ["VARIABLE", "arm", "describe", "tie"]

VARIABLE: Final = "ORC_TRIO_LIFELINE"
_SEPARATOR: Final = ":"


def describe(descriptor: int) -> str:
    """What to put into the variable for a child that inherits ``descriptor``, the read end of a pipe."""
    return f"{descriptor}{_SEPARATOR}{os.fstat(descriptor).st_ino}"


def arm() -> bool:
    """Have this process killed when its controller dies, if it was started with a lifeline.

    Any number of times; the first counts.

    Returns:
        Whether this call armed one.

    Raises:
        OSError: The kernel refused; then nothing would end this process when its controller dies.
    """
    descriptor = _inherited(os.environ.pop(VARIABLE, ""))
    if descriptor is None or sys.platform != "linux":
        return False
    os.set_inheritable(descriptor, False)
    tie(descriptor, os.getpid())
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if poll.poll(0):  # it was cut before the kernel knew whom to tell
        os.kill(os.getpid(), signal.SIGKILL)  # pragma: no cover (nobody lives to tell)
    return True


def tie(descriptor: int, pid: int) -> None:
    """Have a process killed when the write end of a pipe is closed, for as long as it has the read end.  Linux only.

    Args:
        descriptor: The read end, here.
        pid: The process, which has it too.

    Raises:
        OSError: The kernel refused.
    """
    if sys.platform != "linux":
        return
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, pid)
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


def _inherited(text: str) -> int | None:
    """The descriptor that ``text`` describes, if it is still that pipe."""
    number, _, inode = text.partition(_SEPARATOR)
    if not (number.isdecimal() and inode.isdecimal()):
        return None
    try:
        status = os.fstat(int(number))
    except (OSError, OverflowError):
        return None
    return int(number) if stat.S_ISFIFO(status.st_mode) and status.st_ino == int(inode) else None
