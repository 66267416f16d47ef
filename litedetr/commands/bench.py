"""How long things take."""

from __future__ import annotations

import argparse
import sys

from litedetr.bench import table
from litedetr.bench.report import Report
from litedetr.bench.rows import Plan, measure


def run_bench(options: argparse.Namespace) -> int:
    if options.report:
        report = Report.load(options.report)
    else:
        chosen = {"groups": tuple(options.rows.split(","))} if options.rows else {}
        rounds = options.rounds or (2 if options.quick else Plan.rounds)
        sizes = {"sizes": ((640, 640),)} if options.quick else {}
        threads = tuple(map(int, options.threads.split(",")))
        plan = Plan(rounds=rounds, threads=threads, **chosen, **sizes)
        for report in measure(plan, lambda group: print(f"{group} …", file=sys.stderr)):
            if options.json:
                report.save(options.json)
    print(table.markdown(report), end="")
    for document in options.markdown:
        table.write_into(document, report)
    return 0
