"""Optional ways out; each imports one thing lazily."""
