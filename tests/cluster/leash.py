"""Become another program that the kernel kills when its parent dies.

Run as a script: `python -I -S leash.py PARENT_PID PROGRAM ARGUMENT...`. It replaces itself, so the pid stays the same.
A `preexec_fn` would do it without the script, but runs Python between fork and exec of a process that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask for SIGKILL at the parent's death, then become *command*."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the line above
        sys.exit("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 (the tests choose the program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
