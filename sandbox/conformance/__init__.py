"""The conformance pack: what an allocator promises, asked of one that somebody else has written."""

from .check import check, check_image, replay
from .operations import Script
from .regression import save, source_of_test
from .report import LINES, Line, Report

__all__ = ["LINES", "Line", "Report", "Script", "check", "check_image", "replay", "save", "source_of_test"]
