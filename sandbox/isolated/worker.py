"""The child process of :func:`~sandbox.isolated.run.run_isolated`: one guest for each request.

``python -m sandbox.isolated.worker``; requests on standard input, messages on standard output.
"""

from __future__ import annotations

import codecs
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import SandboxError, UsageError
from ..guest.outcome import RunResult
from ..kernel import Kernel, boot
from ..trace.events import Event
from ..trace.tracer import LiveTrace
from ..view.run import Before, summary
from .bounds import Bounds
from .channel import Channel
from .run import packed

PIECE = 1024
"""Bytes of serial text after which they are sent, line or no line."""


class Console:
    """The guest's serial port on its way to the parent, in lines or in pieces."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._bytes = bytearray()

    def byte(self, value: int) -> None:
        """One byte was sent."""
        self._bytes.append(value)
        if value == 0x0A or len(self._bytes) >= PIECE:
            self.flush()

    def flush(self, final: bool = False) -> None:
        """Send what there is."""
        text = self._decode(bytes(self._bytes), final)
        self._bytes.clear()
        if text:
            self._channel.send(console=text)


class Recording:
    """A trace that sends its first ``limit`` events and then stops, at the next pause of the guest."""

    def __init__(self, kernel: Kernel, limit: int, channel: Channel) -> None:
        self._channel = channel
        self._limit = limit
        self._sent = 0
        self.complete = True
        self._trace: LiveTrace | None = kernel.trace(self._event) if limit else None

    def _event(self, event: Event) -> None:
        if self._sent == self._limit:
            self.complete = False
            return
        self._sent += 1
        self._channel.send(event=event.to_dict())

    def pause(self) -> None:
        """The guest stands still for a moment."""
        if not self.complete:
            self.stop()

    def stop(self) -> None:
        """The end of the recording; events that are open are sent as unfinished."""
        if self._trace is not None and self._trace.recording:
            self._trace.stop()

    def events(self) -> list[Event]:
        """All of them, those that were not sent too."""
        return list(self._trace.walk()) if self._trace is not None else []


def main() -> None:
    """Serve requests until the parent is gone."""
    channel = Channel()
    Bounds().apply()
    for request in channel.requests():
        try:
            channel.send(done=True, result=serve(request, channel))
        except SandboxError as error:
            channel.send(done=True, error=packed(error))


def serve(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Boot and run as the request says; the result as data."""
    os.chdir(request["directory"])
    program = request["program"]
    if isinstance(program, dict):
        program = Path(program["path"])
    try:
        signature(boot).bind(program, **request["options"])
    except TypeError as error:
        raise UsageError(f"boot: {error}") from None
    with boot(program, **request["options"]) as kernel, _listening(kernel, request, channel) as console:
        kernel.inject(*request["inject"])
        recording = Recording(kernel, request["event_limit"], channel)
        before = Before.of(kernel.heap)
        channel.send(begins=True)

        def progress(taken: int) -> None:
            console.flush()
            recording.pause()
            channel.send(instructions=taken)

        try:
            result = kernel.run(request["limit"], progress)
        finally:
            recording.stop()
        named = shlex.join([str(program), *map(str, request["options"].get("modules", ()))])
        report = "\n".join(summary(kernel, result, before, recording.events(), named))
        accused = [] if kernel.shadow is None else [str(error) for error in kernel.shadow.errors]
        return {**_plain_result(result, recording, report), "shadow_errors": accused}


@contextmanager
def _listening(kernel: Kernel, request: dict[str, Any], channel: Channel) -> Iterator[Console]:
    """Pass the serial text on, from the boot's on, and keep no more of it here than the parent does."""
    console, serial = Console(channel), kernel.machine.serial
    for value in bytes(serial.output):
        console.byte(value)
    serial.listener, serial.output_limit = console.byte, request["console_limit"]
    try:
        yield console
    finally:
        serial.listener = None
        console.flush(final=True)


def _plain_result(result: RunResult, recording: Recording, report: str) -> dict[str, Any]:
    return {"kind": str(result.kind), "status": result.status, "instructions": result.instructions,
            "sentence": result.sentence, "events_complete": recording.complete, "report": report,
            "error": None if result.error is None else packed(result.error)}


if __name__ == "__main__":
    main()
