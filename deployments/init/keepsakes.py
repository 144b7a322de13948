"""What init writes: answers, and what it draws itself. A key or a password that is there is never drawn again."""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from blocks import certificates
from blocks.keys import age_recipient_flaw
from deployments.init import made
from deployments.init.answers import KEEP, Answers
from deployments.init.draft import Draft
from deployments.init.questions import Question

IDENTITY = "age-identity.txt"
CERTIFICATE, CERTIFICATE_KEY = "tls/harbor.crt", "tls/harbor.key"
ADMIN = "secrets/harbor-admin"
ROLES = {"application": "harbor", "replication": "replicator", "rewind": "rewinder"}


def put_answer(draft: Draft, question: Question, text: str, title: str) -> None:
    """Put an answer into the draft, a secret into its file."""
    draft.title(question.path.partition(".")[0], title)
    if not text:
        if question.path == "failover.fence_command":
            draft.put(
                "failover.fencing", "confirmed", "without fence_command a vanished machine needs your word"
            )
        return
    if question.file:
        draft.put_file(question.path, question.file, f"{text}\n", replace=True)
    elif question.path == "harbor.installer" and not text.startswith("https://"):
        draft.put(question.path, str(Path(text).expanduser().absolute()))
    elif question.words:
        draft.put(question.path, shlex.split(text))
    else:
        draft.put(question.path, int(text) if question.number else text)


def ensure_postgres(draft: Draft, find_major: Callable[[], int]) -> None:
    """Describe PostgreSQL: the nodes' own major version, and a drawn password for each role."""
    draft.title("postgres", "Primary and standby; which is which is read off the nodes.")
    if draft.value("postgres.major") is None:
        draft.put("postgres.major", find_major(), "as the nodes' release has it")
    if draft.value("postgres.durability") is None:
        draft.put("postgres.durability", "async", "async | preferred | required")
    for role, user in ROLES.items():
        if draft.value(f"postgres.{role}.user") is None:
            draft.put(f"postgres.{role}.user", user)
        if draft.value(f"postgres.{role}.password") is None:
            draft.put_file(f"postgres.{role}.password", f"secrets/postgres-{user}", f"{made.password()}\n")


def ensure_admin_password(draft: Draft) -> None:
    """Draw the first password of Harbor's admin."""
    if draft.value("harbor.admin_password") is None:
        draft.put_file("harbor.admin_password", ADMIN, f"{made.password_of_admin()}\n", "of the user admin")


def ensure_certificate(draft: Draft, answers: Answers, chain: str, key: str) -> None:
    """Keep the operator's certificate, or make one that is its own authority."""
    if draft.value("harbor.certificate") is not None:
        return
    hostname, remark = draft.text("harbor.hostname"), ""
    if not (draft.kept(CERTIFICATE) or chain):
        chain, key = _asked_certificate(answers, hostname)
    if not (draft.kept(CERTIFICATE) or chain):
        chain, key = made.self_signed(hostname, datetime.now(UTC))
        remark = "self-signed"
        answers.tell(
            f"{draft.directory / CERTIFICATE} is self-signed: each Docker that uses Harbor needs it as "
            f"/etc/docker/certs.d/{hostname}/ca.crt"
        )
    # The key first: one without the other would be taken for whole at the next run.
    draft.put_file("harbor.certificate_key", CERTIFICATE_KEY, key)
    draft.put_file("harbor.certificate", CERTIFICATE, chain, remark)


def ensure_recipients(draft: Draft, answers: Answers, given: Sequence[str]) -> None:
    """Have a public key that backups are encrypted for; the secret one belongs elsewhere."""
    if draft.value("backup.age_recipients") or not draft.value("oss.bucket"):
        return
    question = Question(
        "backup.age_recipients.0", "age public key to encrypt backups for; empty: a new one", optional=True
    )
    recipients = list(given)
    while not recipients:
        text = answers.answer(question, "")
        if not text:
            break
        flaw = age_recipient_flaw(text)
        if flaw is None:
            recipients = [text]
        else:
            answers.tell(f"  {flaw} -> age1… as age-keygen prints it")
    if not recipients:
        kept = draft.kept(IDENTITY)
        text, public = (kept, kept.partition("\n")[0].rpartition(" ")[2]) if kept else made.age_identity()
        draft.write_new(IDENTITY, text)
        recipients = [public]
    draft.put("backup.age_recipients", recipients)


def reminders(draft: Draft) -> list[str]:
    """Say what is left to a person: where the secrets belong that must not stay on this machine."""
    lines = []
    if (draft.directory / IDENTITY).exists():
        lines.append(
            f"{draft.directory / IDENTITY} opens every backup, and does not belong on this machine: put it into your "
            f"safe and where you would restore, then `shred -u {draft.directory / IDENTITY}`"
        )
    lines.append(f"Keep a copy of {draft.directory} in a second safe place: a second orchestrator needs it")
    return lines


def _asked_certificate(answers: Answers, hostname: str) -> tuple[str, str]:
    """Ask for the files of a certificate until they fit; empty texts stand for a self-signed one."""
    ask_chain = Question(
        "harbor.certificate", "Certificate: PEM file; empty: a self-signed one", optional=True
    )
    ask_key = Question("harbor.certificate_key", "Its private key: PEM file")
    while path := answers.answer(ask_chain, ""):
        key_path = answers.answer(ask_key, "")
        try:
            texts = [Path(name).expanduser().read_text(encoding="utf-8") for name in (path, key_path)]
        except (OSError, UnicodeDecodeError) as error:
            answers.tell(f"  cannot be read: {error}")
            continue
        flaws = certificates.flaws(texts[0], texts[1], hostname, datetime.now(UTC))
        problems = [
            f"{'its key' if flaw.of == 'key' else 'it'} {flaw.what} -> {flaw.right}" for flaw in flaws
        ]
        if not problems or answers.trouble("Certificate", problems) == KEEP:
            return texts[0], texts[1]
    return "", ""
