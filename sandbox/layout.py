"""How Python looks at structures in guest memory: ``Struct`` and ``Field``, ``Register`` and ``Bit``.

A :class:`Struct` subclass is the C declaration; an instance is an address in some memory, and each field is read
from (or written to) the bytes there at the moment it is asked for. Nothing is cached, so a view never disagrees
with the guest::

    class page(Struct):
        flags = u32("what the frame is used for")
        order = u8("log2 of the number of frames, in the first frame of a block")
        next = pointer("the next block on the same list")

    page(memory, address).order            # one byte, now
    page.order.offset, page.size           # 4, 16

A field that C calls ``size`` or ``address``, as every view has one of its own, is written ``size_`` in Python.

Fields lie in the order in which they are written, each at its natural alignment, and the whole is padded to the
alignment of its largest member: the System V rules, so that assembly, C and Python agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, overload

from .address import align_up


class Readable(Protocol):
    """Anything that bytes can be read from by address."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address`` on."""
        ...


class Writable(Readable, Protocol):
    """Anything that bytes can be read from and written to by address."""

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on."""
        ...


class Field:
    """One unsigned little-endian integer of a :class:`Struct`; ``count`` > 1 makes it an array."""

    def __init__(self, width: int, note: str = "", count: int = 1) -> None:
        self.width = width
        self.note = note
        self.count = count
        self.name = ""
        self.offset = -1

    def __set_name__(self, owner: type[Struct], name: str) -> None:
        if hasattr(Struct, name):
            raise TypeError(f"{owner.__name__}.{name}: every Struct has a {name} of its own; write {name}_")
        self.name = name.rstrip("_")

    @property
    def size(self) -> int:
        """Bytes of the whole field."""
        return self.width * self.count

    @overload
    def __get__(self, instance: None, owner: type[Struct]) -> Field: ...
    @overload
    def __get__(self, instance: Struct, owner: type[Struct]) -> Any: ...
    def __get__(self, instance: Struct | None, owner: type[Struct]) -> Any:
        if instance is None:
            return self
        return self.decode(instance.memory.read(instance.address + self.offset, self.size))

    def __set__(self, instance: Struct, value: Any) -> None:
        instance.memory.write(instance.address + self.offset, self.encode(value))

    def decode(self, data: bytes) -> Any:
        """The value that these bytes mean: an int, or a tuple of ints for an array."""
        if self.count == 1:
            return int.from_bytes(data, "little")
        return tuple(
            int.from_bytes(data[at : at + self.width], "little") for at in range(0, self.size, self.width)
        )

    def encode(self, value: Any) -> bytes:
        """The bytes for a value, negative ones in two's complement."""
        values = value if self.count > 1 else (value,)
        mask = (1 << (8 * self.width)) - 1
        return b"".join((item & mask).to_bytes(self.width, "little") for item in values)


class TextField(Field):
    """A NUL-terminated string in a fixed number of bytes (``char name[n]``): UTF-8, as the arguments of calls are;
    bytes that are none, a character cut in half at the end too, are U+FFFD."""

    def __init__(self, length: int, note: str = "") -> None:
        super().__init__(1, note, length)

    def decode(self, data: bytes) -> str:
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")

    def encode(self, value: str) -> bytes:
        return value.encode()[: self.count - 1].ljust(self.count, b"\0")


class PointerField(Field):
    """A 64-bit virtual address."""


class NestedField(Field):
    """A structure, or an array of them, inside another; reading it gives live views."""

    def __init__(self, struct: type[Struct], note: str = "", count: int = 1) -> None:
        super().__init__(struct.size, note, count)
        self.struct = struct

    def __get__(self, instance: Struct | None, owner: type[Struct]) -> Any:
        if instance is None:
            return self
        views = [self.struct(instance.memory, instance.address + self.offset + index * self.width)
                 for index in range(self.count)]
        return tuple(views) if self.count > 1 else views[0]

    def __set__(self, instance: Struct, value: Any) -> None:
        raise AttributeError(f"{self.name} is a structure: assign to its fields")


def u8(note: str = "", count: int = 1) -> Field:
    """An unsigned byte."""
    return Field(1, note, count)


def u16(note: str = "", count: int = 1) -> Field:
    """An unsigned 16-bit integer."""
    return Field(2, note, count)


def u32(note: str = "", count: int = 1) -> Field:
    """An unsigned 32-bit integer."""
    return Field(4, note, count)


def u64(note: str = "", count: int = 1) -> Field:
    """An unsigned 64-bit integer."""
    return Field(8, note, count)


def pointer(note: str = "", count: int = 1) -> Field:
    """A 64-bit virtual address."""
    return PointerField(8, note, count)


def text(length: int, note: str = "") -> Field:
    """``char name[length]``, NUL-terminated."""
    return TextField(length, note)


class Struct:
    """A typed view on guest bytes; subclasses list their fields in memory order."""

    size: ClassVar[int] = 0
    alignment: ClassVar[int] = 1
    fields: ClassVar[tuple[Field, ...]] = ()
    memory: Writable
    address: int = 0

    def __init_subclass__(cls, packed: bool = False, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        offset, largest, fields = 0, 1, []
        for field in vars(cls).values():
            if isinstance(field, Field):
                natural = field.struct.alignment if isinstance(field, NestedField) else field.width
                alignment = 1 if packed else natural
                field.offset = offset = align_up(offset, alignment)
                offset += field.size
                largest = max(largest, alignment)
                fields.append(field)
        cls.fields, cls.alignment, cls.size = tuple(fields), largest, align_up(offset, largest)

    def __init__(self, memory: Writable, address: int) -> None:
        self.memory = memory
        self.address = address

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Pairs of a field's name and its present value."""
        for field in self.fields:
            yield field.name, field.__get__(self, type(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Struct) and self.address == other.address

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.address))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at 0x{self.address:x}>"

    @classmethod
    def field_at(cls, offset: int) -> Field | None:
        """The field that covers byte ``offset`` of the structure, None for padding."""
        return next((field for field in cls.fields if field.offset <= offset < field.offset + field.size), None)

    @classmethod
    def pack(cls, **values: Any) -> bytes:
        """The bytes of a fresh structure with these fields, zero elsewhere."""
        data = bytearray(cls.size)
        by_name = {field.name: field for field in cls.fields}
        for name, value in values.items():
            field = by_name[name]
            data[field.offset : field.offset + field.size] = field.encode(value)
        return bytes(data)


class Bit:
    """A bit, or ``width`` bits from ``low`` up, of a :class:`Register`."""

    def __init__(self, low: int, note: str = "", width: int = 1) -> None:
        self.low = low
        self.width = width
        self.note = note
        self.name = ""

    def __set_name__(self, owner: type[Register], name: str) -> None:
        self.name = name

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << self.width) - 1) << self.low

    @overload
    def __get__(self, instance: None, owner: type[Register]) -> Bit: ...
    @overload
    def __get__(self, instance: Register, owner: type[Register]) -> int: ...
    def __get__(self, instance: Register | None, owner: type[Register]) -> Bit | int:
        return self if instance is None else (int(instance) & self.mask) >> self.low


class Register(int):
    """An integer whose bits have names: ``CR0(0x80010033).PG == 1``, ``str()`` names the bits that are set."""

    bits: ClassVar[tuple[Bit, ...]] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.bits = tuple(bit for bit in vars(cls).values() if isinstance(bit, Bit))

    @classmethod
    def of(cls, *names: str, **values: int) -> int:
        """A value with the named bits set and the named fields given."""
        by_name = {bit.name: bit for bit in cls.bits}
        result = 0
        for name in names:
            result |= by_name[name].mask
        for name, value in values.items():
            result |= (value << by_name[name].low) & by_name[name].mask
        return cls(result)

    def names(self) -> list[str]:
        """The names of the bits that are set, wider fields as ``name=value``, lowest first."""
        shown = []
        for bit in sorted(self.bits, key=lambda bit: bit.low):
            value = (int(self) & bit.mask) >> bit.low
            if value:
                shown.append(bit.name if bit.width == 1 else f"{bit.name}={value:#x}")
        return shown

    def __str__(self) -> str:
        return f"{int(self):#x} ({' '.join(self.names())})" if self.names() else f"{int(self):#x}"
