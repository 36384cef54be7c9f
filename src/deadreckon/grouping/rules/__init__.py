"""Grouping rules as data: what users write about frames and events, in TOML or in Sentry's two text grammars.

A stack-trace rule has matchers and actions (``family:native function:std::* -app``), a fingerprint rule matchers and
the values that take the fingerprint's place (``error.type:DatabaseError -> database, {{ default }}``). ``load_rules``
reads files of either kind, ``parse_rules`` texts; ``StackRules`` applies stack-trace rules to stacks.
"""

from deadreckon.grouping.rules.model import (
    FingerprintRule,
    FlagAction,
    Matcher,
    RuleError,
    RuleSet,
    StackRule,
    VarAction,
)
from deadreckon.grouping.rules.read import load_rules, parse_rules, parse_toml
from deadreckon.grouping.rules.stack import StackRules, Symbol, family_of

__all__ = [
    "FingerprintRule",
    "FlagAction",
    "Matcher",
    "RuleError",
    "RuleSet",
    "StackRule",
    "StackRules",
    "Symbol",
    "VarAction",
    "family_of",
    "load_rules",
    "parse_rules",
    "parse_toml",
]
