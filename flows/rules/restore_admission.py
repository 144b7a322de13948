"""Whether a backup may be restored on a machine: every objection at once, before anything is changed."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import Refused


@dataclass(frozen=True)
class RestoreFacts:
    """What is known before a restore.

    Attributes:
        target: the node that becomes Harbor.
        images: where image data is to come from, `nas` or `oss`.
        site_version, backup_version: of Harbor.
        site_major, backup_major: of PostgreSQL.
        backup_has_images: every blob was in the bucket when it was made.
        alive: other nodes of the site that answer as a primary.
        physical: the data directory itself is restored, not a dump of it.
        life: signs that the site is alive, each as a sentence; no attestation outweighs them.
        unknown: who could not be asked for such signs, each as a sentence.
        attested: the operator attests that the site is lost.
    """

    target: str
    images: str
    site_version: str
    backup_version: str
    site_major: int
    backup_major: int
    backup_has_images: bool
    alive: Sequence[str] = ()
    physical: bool = False
    life: Sequence[str] = ()
    unknown: Sequence[str] = ()
    attested: bool = False


def admit_restore(facts: RestoreFacts) -> None:
    """Say nothing when the restore may begin.

    Raises:
        Refused: with every reason.
    """
    reasons = [*objections(facts)]
    if reasons:
        raise Refused(f"The backup cannot be restored on {facts.target}.", reasons)


def objections(facts: RestoreFacts) -> list[str]:
    """List what stands against the restore."""
    found = []
    for node in facts.alive:
        found.append(
            f"{node} answers as primary: the site is not lost. Use failover or switchover; if that node is to be "
            "given up, switch it off and take it out of the site file first."
        )
    found += signs_of_life(facts.life, facts.unknown, attested=facts.attested)
    if facts.images not in ("nas", "oss"):
        found.append(f"images is `{facts.images}`; it is `nas` or `oss`.")
    if facts.images == "oss" and not facts.backup_has_images and not facts.physical:
        found.append(
            "The backup was made without all images; use images=nas, or an earlier backup that has them."
        )
    if facts.site_version != facts.backup_version:
        found.append(
            f"The backup is of Harbor {facts.backup_version}, the site file names {facts.site_version}. Name the "
            "installer of the backup's version; upgrade Harbor after it is back."
        )
    if facts.physical and facts.site_major != facts.backup_major:
        found.append(
            f"The base backup is of PostgreSQL {facts.backup_major}, the site file names {facts.site_major}; a data "
            f"directory fits its own version only. Name {facts.backup_major}, for a machine that has it, or leave "
            "`to_time` out: then the dump of the nightly backup is loaded, which a newer version takes."
        )
    elif facts.site_major < facts.backup_major:
        found.append(
            f"The dump is of PostgreSQL {facts.backup_major}, the site file names {facts.site_major}; a dump can be "
            "loaded into the same or a newer version only."
        )
    return found


def signs_of_life(life: Sequence[str], unknown: Sequence[str], *, attested: bool) -> list[str]:
    """List what says that the site which is to be rebuilt is alive, or that nobody can tell.

    Not to be reached is not to be lost: an orchestrator that was cut off from both nodes emptied the living Redis,
    wrote to the living NAS and served a second Harbor.
    """
    found = [
        f"{sign}: the site is alive. Find out why its nodes are not reached from here; what is to be given up is "
        "switched off first. As long as this is seen, no attestation is believed."
        for sign in life
    ]
    if unknown and not attested:
        found.append(
            f"Nobody can tell that the site is lost: {'; '.join(unknown)}. Switch every old machine off or cut it off "
            "from clients, Redis and the NAS, look that it is so, and call again with attest_site_lost=true. You "
            "attest that, and that none of them is switched on before it has been taken out of the site."
        )
    return found
