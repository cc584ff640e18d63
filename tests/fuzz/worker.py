"""The child process of the soak: one guest for each request, and what did not hold of it."""

from __future__ import annotations

import os
import traceback

from sandbox.isolated.bounds import Bounds, resident_bytes
from sandbox.isolated.channel import Channel

from .guests import Guests, case

MEMORY = 1 << 30


def main() -> None:
    channel = Channel()
    Bounds(memory=MEMORY).apply()
    guests = Guests()
    for request in channel.requests():
        words, failure = "", ""
        try:
            words = guests.run(case(request["number"]))
        except Exception:
            failure = traceback.format_exc(limit=-6)
        channel.send(done=True, words=words, failure=failure, resident=resident_bytes(os.getpid()))


if __name__ == "__main__":
    main()
