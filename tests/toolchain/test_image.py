"""The image's JSON form, and what it answers about addresses."""

from __future__ import annotations

import json

import pytest

from sandbox.errors import SandboxError
from sandbox.toolchain.image import Image, Section

from .conftest import Assemble

TEXT = ".set K, 5\nmain: ret\ninner: .byte 1, 2\n.rodata\n.ascii \"x\"\n.bss\nroom: .zero 5000\n"


def test_an_image_survives_json(asm: Assemble) -> None:
    image = asm(TEXT)
    again = Image.from_json(image.to_json())
    assert again == image and again.to_json() == image.to_json()
    assert list(again.lines) == sorted(again.lines) and list(again.symbols) == list(image.symbols)


def test_damaged_json_is_one_typed_error(asm: Assemble) -> None:
    text = asm(TEXT).to_json()
    data = json.loads(text)
    changes = [{"version": 99}, {"sections": 5}, {"lines": [[0, 99, 1]]}, {"sections": [{"name": "text"}]}]
    damaged = ["", "null", "[]", "{}", text[:-2], *(json.dumps(data | change) for change in changes)]
    damaged += [json.dumps({key: value for key, value in data.items() if key != missing}) for missing in data]
    for item in damaged:
        with pytest.raises(SandboxError):
            Image.from_json(item)


def test_sections_cover_the_image_without_gaps(asm: Assemble) -> None:
    image = asm(TEXT)
    address = image.base
    for section in image.sections:
        assert section.address == address and image.section(section.name) is section
        address = section.end
    assert address == image.end and len(image.bytes()) == image.end - image.base
    assert image.section("none") is None and image.section_at(image.end) is None


def test_padding_behind_the_code_belongs_to_no_line(asm: Assemble) -> None:
    image = asm(TEXT)
    assert image.line(image.text_end - 1) is not None and image.line(image.text_end) is None
    assert image.data_end(image.symbols["inner"]) == image.text_end and image.data_end(image.base) is None


def test_the_last_symbol_of_one_section_does_not_reach_into_the_next() -> None:
    sections = (Section("text", 0x1000, bytes(4096), "r-x"), Section("data", 0x2000, bytes(4096), "rw-"))
    image = Image(0x1000, sections, {"main": 0x1000, "room": 0x2010}, text_end=0x1004)
    assert image.symbolize(0x1FFF) == "main+0xfff" and image.symbolize(0x2000) is None
    assert image.symbolize(0x2011) == "room+0x1"
    assert image.functions == {"main": (0x1000, 0x1004)}
