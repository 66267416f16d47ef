"""`python -m litedetr bench`: how fast it is, beside what else one could take, with the limits it is held to.

`rows.measure(plan)` gives a `report.Report` of `Row`s; `table` writes it as a table. All ratios come from one
process in which both sides take turns (`timing`).
"""
