"""What Sentry's clients send: events, envelopes, and minidumps in forms.

``store`` reads a body of the store endpoint, ``envelope`` an envelope, ``form`` a minidump's upload; all three come to
``event``, which reads the event itself with ``stacks`` and ``images``.
"""
