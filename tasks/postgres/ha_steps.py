"""What failover, switchover and rejoin do to PostgreSQL, as Prefect tasks."""

from tasks.again import WAIT
from tasks.postgres import durability, proof, rejoin, reverse, standby, stop
from tasks.postgres import lost_commits as lost
from tasks.postgres import promote as promotion
from tasks.step import step

stop_for_switchover = step(stop.stop_for_switchover, "Shut the primary down")
prove_shutdown = step(stop.prove_shutdown, "Prove that the standby has everything")
fence_by_ssh = step(stop.fence_by_ssh, "Fence over SSH")
compensate = step(stop.compensate, "Take the old primary back")
restart_primary = step(stop.restart_primary, "Restart the primary")
prove_write = step(proof.prove_write, "Prove that the primary takes writes")
promote = step(promotion.promote, "Promote the standby")
hold = step(promotion.hold, "See whether the standby was promoted")
checkpoint = step(promotion.checkpoint, "Write a checkpoint")
ensure_slots = step(promotion.ensure_slots, "Give the primary its slots")
drop_stale_slots = step(promotion.drop_stale_slots, "Drop stale slots on the standby")
await_copy = step(rejoin.await_copy, "Wait for a copy left running", again=WAIT)
follow = step(rejoin.follow, "Start as a standby")
clone = step(standby.clone, "Clone from the primary")
try_reverse_path = step(reverse.try_reverse_path, "Try the reverse replication path")
rewind = step(rejoin.rewind, "Rewind")
lost_commits = step(lost.lost_commits, "List what only the old primary had")
note_told = step(lost.note_told, "Note that the losses are told")
relax_durability = step(durability.relax, "Let commits wait for nobody")
mirror_durability = step(durability.mirror, "Mirror the durability record")
