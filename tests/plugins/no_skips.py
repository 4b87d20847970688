"""Where everything is installed nothing may be skipped: a test that skips, or that is expected to
fail, fails. `scripts/test` loads this when `CI` is set."""

from __future__ import annotations

import pytest


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was not run, and in CI every test is: {reason or 'xfail'}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):  # type: ignore[no-untyped-def]
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):  # type: ignore[no-untyped-def]
    report = yield
    _refuse(report)
    return report
