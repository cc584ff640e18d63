"""The devices of the PC: each a class whose methods are the register map of its data sheet."""

from .debug_exit import DebugExit
from .device import Device, Line, State, unconnected
from .pic import Pic
from .pit import Pit
from .serial import Serial

__all__ = ["DebugExit", "Device", "Line", "Pic", "Pit", "Serial", "State", "unconnected"]
