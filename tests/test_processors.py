"""How many processors there are by the system's files, and what OpenMP is told before PyTorch comes."""

import os
import subprocess
import sys

import pytest

from litedetr.processors import granted

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, BOUND),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, BOUND),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "99900000 100000\n"}, BOUND),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 1"}, 1),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            BOUND,
        ),
    ],
)
def test_the_smallest_quota_counts(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert granted(tmp_path) == expected


@pytest.mark.parametrize(
    ("first", "given", "expected"),
    [("litedetr", {}, "PASSIVE"), ("torch", {}, "None"), ("litedetr", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")],
)
def test_threads_wait_passively_unless_it_is_too_late_or_was_said(first, given, expected):
    code = f"import os, {first}, litedetr; print(os.environ.get('OMP_WAIT_POLICY'))"
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env={**rest, **given}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
