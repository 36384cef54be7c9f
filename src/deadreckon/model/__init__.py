"""What a report said (crash.py), what we say (event.py), and the columns in between (tables.py)."""
