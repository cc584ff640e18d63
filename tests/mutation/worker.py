"""The child process of the mutation test: one mutant for each request, and what noticed it."""

from __future__ import annotations

import traceback

from sandbox.guest.images import assemble_program
from sandbox.isolated.bounds import Bounds
from sandbox.isolated.channel import Channel
from sandbox.toolchain import packaged

from .booted import SHIM
from .mutants import every
from .trial import trial


def main() -> None:
    channel = Channel()
    Bounds().apply()
    image = packaged.kernel_image()
    selftest = assemble_program(packaged.kernel_directory() / "selftest.asm", image)
    shim = assemble_program(SHIM, image)
    mutants = {mutant.name: mutant for mutant in every(image)}
    for request in channel.requests():
        name, noticed = request["name"], ""
        try:
            trial(mutants[name].apply(image) if name else image, selftest, shim)
        except Exception as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__) if "mutation" in frame.filename]
            noticed = f"{' > '.join(frames)}: {type(error).__name__}: {str(error)[:300]}"
        channel.send(done=True, noticed=noticed)


if __name__ == "__main__":
    main()
