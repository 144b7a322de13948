"""The alert rules, judged by Prometheus' own promtool, where this machine has it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "deployments" / "alerts" / "prometheus-rules.yml"
ALERTMANAGER = RULES.with_name("alertmanager.yml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool comes with Debian's prometheus")

NODE = 'job="harbor-postgres", site="main", node="{}", instance="{}:9187"'


def series(name: str, node: str, values: str) -> dict[str, str]:
    return {"series": f"{name}{{{NODE.format(node, node)}}}", "values": values}


def judge(tmp_path: Path, given: list[dict[str, str]], at: dict[str, list[str]], alert: str) -> None:
    """Let promtool judge on which nodes the alert fires at which times."""
    cases = [
        {
            "eval_time": when,
            "alertname": alert,
            "exp_alerts": [
                {
                    "exp_labels": {
                        "job": "harbor-postgres",
                        "severity": "critical",
                        "site": "main",
                        "node": node,
                        "instance": f"{node}:9187",
                    }
                }
                for node in nodes
            ],
        }
        for when, nodes in at.items()
    ]
    # Annotations are compared as well unless the rules have none.
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    test: dict[str, Any] = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "5s",
        "tests": [{"interval": "5s", "input_series": given, "alert_rule_test": cases}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The primary answers for a minute and is gone then, with its exporter; a value each 5 s.
GONE = [
    series("up", "node-a", "1x11 0x1500"),
    series("pg_up", "node-a", "1x11 stale"),
    series("pg_replication_is_replica", "node-a", "0x11 stale"),
    series("up", "node-b", "1x1600"),
    series("pg_up", "node-b", "1x1600"),
]


@needs_promtool
def test_the_alert_lasts_as_long_as_the_outage(tmp_path: Path) -> None:
    # Remembered for ten minutes only, it ended by itself, and nothing was started any more.
    given = [*GONE, series("pg_replication_is_replica", "node-b", "1x1600")]
    at = {"1m": [], "80s": ["node-a"], "9m": ["node-a"], "12m": ["node-a"], "2h": ["node-a"]}
    judge(tmp_path, given, at, "HarborPrimaryDown")


@needs_promtool
def test_the_alert_ends_when_another_node_is_the_primary(tmp_path: Path) -> None:
    given = [*GONE, series("pg_replication_is_replica", "node-b", "1x24 0x1500")]
    judge(tmp_path, given, {"80s": ["node-a"], "2m": ["node-a"], "130s": [], "1h": []}, "HarborPrimaryDown")


@needs_promtool
def test_the_new_primary_that_is_lost_in_its_turn_is_an_alert_of_its_own(tmp_path: Path) -> None:
    given = [
        *GONE[:3],
        series("up", "node-b", "1x35 0x1500"),
        series("pg_up", "node-b", "1x35 stale"),
        series("pg_replication_is_replica", "node-b", "1x24 0x10 stale"),
    ]
    at = {"150s": [], "4m": ["node-a", "node-b"], "1h": ["node-a", "node-b"]}
    judge(tmp_path, given, at, "HarborPrimaryDown")


@needs_promtool
def test_a_primary_that_comes_back_ends_it(tmp_path: Path) -> None:
    given = [
        series("up", "node-a", "1x11 0x300 1x300"),
        series("pg_up", "node-a", "1x11 stale _x299 1x300"),
        series("pg_replication_is_replica", "node-a", "0x11 stale _x299 0x300"),
    ]
    judge(tmp_path, given, {"20m": ["node-a"], "27m": []}, "HarborPrimaryDown")


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_repeats_what_starts_a_run_each_minute() -> None:
    # Repeated after four hours, a first run that was refused or killed was the only one of the night.
    routes = yaml.safe_load(ALERTMANAGER.read_text())["route"]["routes"]
    (ours,) = [route for route in routes if route["receiver"] == "harbor-ha"]
    assert (ours["group_wait"], ours["group_interval"], ours["repeat_interval"]) == ("0s", "30s", "1m")
