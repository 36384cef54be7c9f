"""Sentry's grouping of 2023, bit-exact: ``Grouping`` makes hashes of a payload's JSON or of any event of ours.

``decode`` reads JSON in the form in which Relay stores it, ``convert`` any decoded payload, ``sentry_event`` an event
of any format. ``Grouping(configuration, rules).hashes(decode(data))`` is the short way from bytes to hashes.
"""

from deadreckon.grouping.families.sentry.events import sentry_event
from deadreckon.grouping.families.sentry.grouping import CONFIGURATIONS, Grouping, Variant
from deadreckon.grouping.families.sentry.payload import convert, decode

__all__ = ["CONFIGURATIONS", "Grouping", "Variant", "convert", "decode", "sentry_event"]
