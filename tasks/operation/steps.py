"""The lock, the operation record and the maintenance switch as Prefect tasks."""

from tasks.operation import shared, store
from tasks.step import step

acquire = step(store.acquire, "Take the site's lock")
advance = step(store.advance, "Record the operation")
accept = step(store.accept, "Record the accepted primary")
close = step(store.close, "Close the operation")
release = step(store.release, "Give the site's lock back")
put_state = step(store.put_state, "Keep a note on the nodes")
pause = step(store.pause, "Pause the site")
unpause = step(store.unpause, "End the pause")
share_pause = step(shared.share_pause, "Keep the pause on the NAS")
unshare_pause = step(shared.unshare_pause, "Remove the pause from the NAS")
remember_primary = step(store.remember_primary, "Keep the primary's last position")
