"""The stepper: the commands that walk through a recorded run, the panes that show a moment of it, and the terminal."""
