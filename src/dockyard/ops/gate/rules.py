"""One rule against the runs of both sides. Pure."""

from __future__ import annotations

import msgspec

from dockyard.errors import DockyardError
from dockyard.ops.evaluate.compare import compare
from dockyard.ops.evaluate.result import Aggregate, Run
from dockyard.ops.evaluate.statistics import Difference
from dockyard.ops.gate import Outcome, Rule, share


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of the artifact, and of what it is compared with, if it is."""

    mine: tuple[Run, ...]
    theirs: tuple[Run, ...] = ()
    compared: bool = False


def apply(rule: Rule, sides: Sides, level: float) -> Outcome:
    """What comes of the rule; what can't be decided has failed."""
    having = [run for run in sides.mine if rule.suite in (None, run.suite) and _has(run, rule.metric)]
    if not having:
        told = f"no report of suite {rule.suite!r} has it" if rule.suite else "no report has it"
        return Outcome(rule=rule.told, passed=False, told=f"{rule.metric} is missing: {told}")
    if len(having) > 1:
        suites = ", ".join(run.suite for run in having)
        return Outcome(rule=rule.told, passed=False, told=f"several suites have {rule.metric}: {suites}; name one")
    (run,) = having
    if rule.metric in run.performance:
        return _speed(rule, run)
    aggregate = run.aggregate(rule.metric)
    errors = max(aggregate.errors, run.errors)
    if errors > rule.max_errors:
        told = f"{errors} of {len(run.records)} items failed, and {rule.max_errors} may"
        return Outcome(rule=rule.told, passed=False, told=told, value=aggregate.value)
    outcomes = []
    if rule.min is not None or rule.max is not None:
        outcomes.append(_alone(rule, aggregate))
    if rule.max_loss is not None or rule.min_gain is not None:
        outcomes.append(_against(rule, run, sides, level))
    return next((each for each in outcomes if not each.passed), outcomes[0])


def _has(run: Run, metric: str) -> bool:
    return metric in run.performance or any(each.metric.name == metric for each in run.aggregates)


def _speed(rule: Rule, run: Run) -> Outcome:
    """A figure of speed: one number a run, so that it has bounds and nothing to compare."""
    value = run.performance[rule.metric]
    if rule.max_loss is not None or rule.min_gain is not None:
        told = "a figure of speed has no items to compare; use min or max"
        return Outcome(rule=rule.told, passed=False, told=told)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Outcome(rule=rule.told, passed=False, told=f"{rule.metric} is {value!r}, which is no number")
    return _bounds(rule, float(value), float(value), float(value))


def _alone(rule: Rule, aggregate: Aggregate) -> Outcome:
    if aggregate.value is None or aggregate.interval is None:
        return Outcome(rule=rule.told, passed=False, told=f"{rule.metric} could not be computed")
    return _bounds(rule, aggregate.value, aggregate.interval.low, aggregate.interval.high)


def _bounds(rule: Rule, value: float, low: float, high: float) -> Outcome:
    within = f"{value:.4g} ({low:.4g} to {high:.4g})" if low != high else f"{value:.4g}"
    passed, told = True, within
    if rule.min is not None and low < rule.min:
        passed, told = False, f"{within} is not for certain at least {rule.min:g}"
    if rule.max is not None and high > rule.max:
        passed, told = False, f"{within} is not for certain at most {rule.max:g}"
    return Outcome(rule=rule.told, passed=passed, told=told, value=value, low=low, high=high)


def _against(rule: Rule, run: Run, sides: Sides, level: float) -> Outcome:
    other = next((each for each in sides.theirs if each.suite_digest == run.suite_digest), None)
    if other is None:
        told = f"what it is compared with has no report of {run.suite}" if sides.compared else "nothing to compare with"
        return Outcome(rule=rule.told, passed=False, told=told)
    try:
        found = next(
            (each for each in compare(other, run, level=level).metrics if each.metric.name == rule.metric), None
        )
    except DockyardError as error:
        return Outcome(rule=rule.told, passed=False, told=error.message)
    if found is None or found.difference is None:
        why = found.why if found is not None else "it is missing on one side"
        return Outcome(rule=rule.told, passed=False, told=why)
    if found.missing > rule.max_errors:
        told = f"{found.missing} items were scored on one side only"
        return Outcome(rule=rule.told, passed=False, told=told)
    return _relative(rule, found.difference, found.metric.better == "higher")


def _relative(rule: Rule, found: Difference, higher: bool) -> Outcome:
    within = found.relative_interval
    if found.relative is None or within is None:
        told = f"the other's value is {found.first:.4g}, too near to nought for a relative change with an interval"
        return Outcome(rule=rule.told, passed=False, told=told)
    gain = found.relative if higher else -found.relative
    low, high = (within.low, within.high) if higher else (-within.high, -within.low)
    told = f"{gain:+.2%} ({low:+.2%} to {high:+.2%}) on {found.n} items, {found.first:.4g} to {found.second:.4g}"
    passed = True
    if rule.max_loss is not None and low < -share(rule.max_loss):
        passed, told = False, f"{told}: the loss may be more than {share(rule.max_loss):.4g}"
    if rule.min_gain is not None and low <= share(rule.min_gain):
        passed, told = False, f"{told}: not for certain a gain of {share(rule.min_gain):.4g}"
    return Outcome(rule=rule.told, passed=passed, told=told, value=gain, low=low, high=high)
