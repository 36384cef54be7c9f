"""The edges for a job directory: submit.py puts jobs in, supervisor.py works on them, jobs.py looks after them.

From below: files.py (manners with other people's files), description.py (what a job is), spool.py (claims and
results), runner.py (one worker), supervisor.py (its processes), sinks.py and watch.py (what leaves it). docs/jobs.md
and docs/worker.md tell the outside of it.
"""
