"""After everything: no password where it does not belong. Named to run last, when all the others have left traces."""

from lab.faults.stage import Stage
from tests.lab.faults import secret_scan, table


def test_l1_no_password_is_found_in_logs_artifacts_prefects_database_or_readable_files(stage: Stage) -> None:
    stage.restore()
    known = secret_scan.secrets_of(stage)
    found = [
        *secret_scan.in_prefect(stage, known),
        *secret_scan.in_orchestrators_files(stage, known),
        *secret_scan.on_nodes(stage, known),
    ]
    observed = "none" if not found else "; ".join(found)[:200]
    table.ROWS.append(
        table.Row("L1 secrets kept", "none in logs, artifacts, Prefect, readable files", observed)
    )
    assert not found, "\n".join(found)


def test_l1_no_password_was_on_any_command_line_while_the_flows_ran(
    stage: Stage, command_lines: secret_scan.CommandLines
) -> None:
    secret_scan.wait_for_looks(command_lines, 5)
    seen = sorted(command_lines.seen)
    observed = f"none in {command_lines.looks} looks" if not seen else "; ".join(seen)[:200]
    table.ROWS.append(table.Row("L1 secrets on command lines", "none, on any machine", observed))
    assert not seen, seen
