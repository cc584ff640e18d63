"""Slices of guest memory: bytes that know where they were read."""

from __future__ import annotations

import copy
import gc
import pickle

import sandbox
from sandbox import Kernel, PhysAddr
from sandbox.guest.memory import GuestBytes


def test_a_slice_is_its_bytes_in_every_way(kernel: Kernel) -> None:
    pointer = kernel.call("kzalloc", 64)
    kernel.memory[pointer : pointer + 4] = b"four"
    read = kernel.memory[pointer : pointer + 8]
    assert isinstance(read, GuestBytes) and read == b"four\0\0\0\0" and hash(read) == hash(bytes(read))
    assert repr(read) == repr(b"four\0\0\0\0") and read[0] == ord("f") and {read: 1}[b"four\0\0\0\0"] == 1
    for plain in (read + b"!", copy.copy(read), copy.deepcopy(read), pickle.loads(pickle.dumps(read)), bytes(read)):
        assert type(plain) is bytes
    assert type(kernel.memory.read(pointer, 8)) is bytes and type(kernel.memory[pointer]) is int


def test_slices_of_it_know_their_address_too(kernel: Kernel) -> None:
    pointer = kernel.call("kzalloc", 64)
    read = kernel.memory[pointer : pointer + 64]
    assert read.address == pointer and read[8:16].address == pointer + 8 and read[-4:].address == pointer + 60
    assert type(read[::2]) is bytes and read[8:16][4:].address == pointer + 12


def test_physical_ones_have_a_physical_address(kernel: Kernel) -> None:
    assert isinstance(kernel.physical[0x2000:0x2010].address, PhysAddr)
    assert isinstance(kernel.physical[0x2000:0x2010][4:].address, PhysAddr)
    assert kernel.physical[:16].address == 0 and kernel.physical[-16:].address == len(kernel.physical) - 16


def test_they_keep_no_machine_alive() -> None:
    kernel = sandbox.boot()
    read = kernel.memory[kernel.symbols["kmalloc"] : kernel.symbols["kmalloc"] + 4]
    assert read.memory() is kernel.memory
    kernel.close()
    del kernel
    gc.collect()
    assert read.memory() is None
