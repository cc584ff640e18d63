"""Pictures of a guest: pure functions from views and traces to text."""
