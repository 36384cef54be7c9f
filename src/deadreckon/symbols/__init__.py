"""Where symbols come from, and how they are kept."""
