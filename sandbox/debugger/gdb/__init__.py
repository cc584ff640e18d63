"""Stock gdb on a recorded run, in both directions: the remote serial protocol over a timeline.

::

    with GdbServer("127.0.0.1", 1234) as server:
        server.serve(Stub(timeline, monitor))    # until Ctrl-C

:mod:`.packets` cuts bytes into packets, :mod:`.session` keeps one conversation, :mod:`.stub` answers its packets,
:mod:`.motion` moves in time, :mod:`.breakpoints` and :mod:`.registers` are what they say, and :mod:`.server` has the
sockets.
"""

from .server import GdbServer
from .stub import Monitor, Stub

__all__ = ["GdbServer", "Monitor", "Stub"]
