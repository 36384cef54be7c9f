"""Which crashes are the same."""
