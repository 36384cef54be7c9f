"""The edges for a job directory."""
