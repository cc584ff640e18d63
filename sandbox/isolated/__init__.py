"""A guest in a process of its own, for code that nobody vouches for.

An emulator is a large native library: odd guest code can make it abort, run away, or eat the host's memory. In a
child process each of these is one clean error, and the parent is what it was. The parent loads no emulator at all.
"""

from .bounds import Bounds
from .child import Child
from .run import IsolatedError, IsolatedResult, run_isolated

__all__ = ["Bounds", "Child", "IsolatedError", "IsolatedResult", "run_isolated"]
