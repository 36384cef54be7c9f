"""Two RuleTables of one image made one."""

from __future__ import annotations

import numpy as np

from deadreckon.model.tables import CFA_EXPR, NO_RULE, REG_EXPR, REG_VAL_EXPR, RuleTable
from deadreckon.objects.rulebuilder import LAST_RVA, Spans, overlay

__all__ = ["merge"]


def merge(over: RuleTable, under: RuleTable) -> RuleTable:
    """Return a table that holds the rule of ``over`` where that has one, else the rule of ``under``."""
    if not len(over.rva) or not len(under.rva):
        return over if len(over.rva) else under
    # Those of ``under`` keep their numbers; the others come behind them.
    rules, saved = over.rules.copy(), over.saved.copy()
    rules[rules[:, 0] == CFA_EXPR, 2] += len(under.expr)
    rules[:, 4] += len(under.saved)
    saved[np.isin(saved[:, 1], (REG_EXPR, REG_VAL_EXPR)), 2] += len(under.expr)
    start = over.rva.astype(np.int64)
    stop = np.append(start[1:], max(LAST_RVA, int(start[-1]) + 1))
    rule = over.rule.astype(np.int64)
    real = rule != NO_RULE
    spans = Spans(start[real], stop[real], rule[real] + len(under.rules))
    rva, merged = overlay(under.rva.astype(np.int64), under.rule.astype(np.int64), spans)
    return RuleTable(
        rva.astype(np.uint32),
        merged.astype(np.uint32),
        np.concatenate([under.rules, rules]),
        np.concatenate([under.saved, saved]),
        np.concatenate([under.expr, over.expr]),
    )
