"""The course: its lessons, read from the examples themselves, and questions about them.

::

    for lesson in course():
        lesson.number, lesson.title, lesson.idea      # "05", "The free list", "links live in free objects, ..."
    for question in questions(seed=1):
        question.text, question.answer                # computed from a guest that was run for it
"""

from __future__ import annotations

from .catalogue import Kind, Lesson, course, following, lesson
from .question import Nonsense, Question
from .quiz import Tally, questions

__all__ = ["Kind", "Lesson", "Nonsense", "Question", "Tally", "course", "following", "lesson", "questions"]
