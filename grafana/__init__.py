"""Dashboards and rules as code: `python -m grafana` writes what is committed beside it, `--check` says what differs.

`measures` says once what is looked at, how it is asked of Prometheus, what good looks like and what to do otherwise;
`dashboards`, `alerts` and `reference` only arrange it. Nothing of this is shipped in the wheel.
"""
