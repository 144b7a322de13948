"""The alert rules, judged by Prometheus' own promtool."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.receiver import ANSWERS
from deployments.watch.metrics import METRICS

RULES = Path(__file__).parents[2] / "deployments" / "alerts" / "prometheus-rules.yml"
ALERTMANAGER = RULES.with_name("alertmanager.yml")
PROMTOOL = shutil.which("promtool")
# One of the servers' packages brings it.
needs_promtool = pytest.mark.servers

# A name of ours that may be a selector, or the subject of `absent` or `unless`.
NAME = re.compile(r"\bharbor_ha_\w+")
MISSING = re.compile(r"(?:absent\(|unless on \((?:site|instance)\) )(harbor_ha_\w+)")


def rules() -> list[dict[str, Any]]:
    """All rules of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """Values of a series of site main, one each 5 s."""
    given = {"job": "harbor-ha", "instance": "127.0.0.1:9096", "site": "main", **labels}
    return {
        "series": name + "{" + ", ".join(f'{key}="{text}"' for key, text in given.items()) + "}",
        "values": values,
    }


def judge(
    tmp_path: Path, given: list[dict[str, str]], at: dict[str, list[dict[str, str]]], alert: str
) -> None:
    """Let promtool judge with which labels the alert fires at which times."""
    wanted = {rule["alert"]: rule["labels"] for rule in rules()}[alert]
    cases = [
        {
            "eval_time": when,
            "alertname": alert,
            "exp_alerts": [{"exp_labels": {**wanted, **labels}} for labels in found],
        }
        for when, found in at.items()
    ]
    # Annotations are compared as well unless the rules have none.
    whole = yaml.safe_load(RULES.read_text())
    for group in whole["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(whole))
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


HERE = {"job": "harbor-ha", "instance": "127.0.0.1:9096", "site": "main"}
DOWN = {**HERE, "node": "node-a"}


def test_no_rule_names_a_series_that_nobody_tells() -> None:
    named = {name for rule in rules() for name in NAME.findall(rule["expr"])}
    assert named
    assert named <= {ANSWERS, *(f"harbor_ha_{name}" for name in METRICS)}


def test_every_series_that_a_rule_needs_is_told_when_it_is_not_there() -> None:
    # A rule without its series is silent for ever: it was how a broken exporter looked.
    named = {name for rule in rules() for name in NAME.findall(rule["expr"])}
    told = {name for rule in rules() for name in MISSING.findall(rule["expr"])}
    assert named - told == set()


def test_no_rule_needs_an_exporter() -> None:
    foreign = [
        rule["alert"] for rule in rules() if re.search(r"\b(pg_|probe_|node_)\w+(\{|\[| )", rule["expr"])
    ]
    assert foreign == []


@needs_promtool
def test_the_alert_lasts_as_long_as_the_outage(tmp_path: Path) -> None:
    # Remembered for ten minutes only, it ended by itself, and nothing was started any more.
    given = [
        series("harbor_ha_primary_lost", "0x11 1x1500", node="node-a"),
        series("harbor_ha_primary_lost", "0x1600", node="node-b"),
    ]
    at = {"1m": [], "70s": [DOWN], "9m": [DOWN], "2h": [DOWN]}
    judge(tmp_path, given, at, "HarborPrimaryDown")


@needs_promtool
def test_the_alert_ends_when_another_node_is_the_primary(tmp_path: Path) -> None:
    given = [series("harbor_ha_primary_lost", "0x11 1x12 0x1500", node="node-a")]
    judge(tmp_path, given, {"80s": [DOWN], "130s": [], "1h": []}, "HarborPrimaryDown")


@needs_promtool
def test_a_standby_that_is_gone_is_told_and_the_primary_is_not_taken_for_one(tmp_path: Path) -> None:
    given = [
        series("harbor_ha_postgres_answers", "0x100", node="node-a"),
        series("harbor_ha_postgres_answers", "0x100", node="node-b"),
        series("harbor_ha_primary", "1x100", node="node-a"),
        series("harbor_ha_primary", "0x100", node="node-b"),
    ]
    judge(tmp_path, given, {"1m": [], "4m": [{**HERE, "node": "node-b"}]}, "HarborStandbyDown")


@needs_promtool
def test_a_watcher_that_is_away_is_told(tmp_path: Path) -> None:
    there = [
        series(f"harbor_ha_{name}", "0x24 stale", **({"node": "node-a"} if METRICS[name][1] else {}))
        for name in (
            "primary_lost",
            "primaries",
            "prefect_takes_calls",
            "postgres_answers",
            "primary",
            "backups_wanted",
            "look_age_seconds",
        )
    ]
    given = [series("up", "1x24 0x200"), *there]
    judge(tmp_path, given, {"1m": [], "2m": [], "4m": [{}]}, "HarborWatcherAway")


@needs_promtool
def test_a_site_that_is_watched_no_more_is_told(tmp_path: Path) -> None:
    given = [series("harbor_ha_primaries", "1x24 stale"), {**series("harbor_ha_primaries", "1x400")}]
    given[1]["series"] = given[1]["series"].replace("main", "other")
    judge(tmp_path, given, {"2m": [], "10m": [{"site": "main"}]}, "HarborSiteUnwatched")


@needs_promtool
def test_a_backup_that_is_old_or_not_known_is_told(tmp_path: Path) -> None:
    wanted = series("harbor_ha_backups_wanted", "1x20000")
    fresh, none = {"30m": [], "20h": []}, {"30m": [], "2h": [HERE]}
    known = series("harbor_ha_last_backup_timestamp_seconds", "0x20000")
    judge(tmp_path, [wanted, known], {**fresh, "27h30m": [{**HERE}]}, "HarborBackupOld")
    judge(tmp_path, [wanted], none, "HarborBackupOld")
    judge(tmp_path, [series("harbor_ha_backups_wanted", "0x20000")], {"2h": []}, "HarborBackupOld")


@needs_promtool
def test_a_site_whose_thorough_look_fails_is_told(tmp_path: Path) -> None:
    judge(
        tmp_path,
        [series("harbor_ha_primaries", "1x400")],
        {"9m": [], "12m": [{"site": "main"}]},
        "HarborSeriesMissing",
    )


RECEIVER = {"job": "harbor-ha-receiver", "instance": "127.0.0.1:9095"}


def of_receiver(name: str, values: str, **labels: str) -> dict[str, str]:
    """Values of a series of the receiver, one each 5 s."""
    pairs = ", ".join(f'{key}="{text}"' for key, text in {**RECEIVER, **labels}.items())
    return {"series": f"{name}{{{pairs}}}", "values": values}


@needs_promtool
def test_a_receiver_that_is_away_is_told_and_none_is_not_missed(tmp_path: Path) -> None:
    answers = of_receiver(ANSWERS, "0x24 stale", status="202")
    away = {"1m": [], "2m": [], "4m": [RECEIVER]}
    judge(tmp_path, [of_receiver("up", "1x24 0x200"), answers], away, "HarborReceiverAway")
    judge(tmp_path, [series("up", "1x200")], {"10m": []}, "HarborReceiverAway")


@needs_promtool
def test_a_receiver_that_does_not_take_alertmanagers_token_is_told(tmp_path: Path) -> None:
    given = [
        of_receiver(ANSWERS, "0x24 1x400", status="401"),
        of_receiver(ANSWERS, "0x24 7x400", status="202"),
    ]
    refused = [{"instance": RECEIVER["instance"], "status": "401"}]
    judge(tmp_path, given, {"1m": [], "3m": refused, "20m": []}, "HarborReceiverRefuses")


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
