"""Build artifacts (what a build left): bytes to tables. No files, no network, no policy."""
