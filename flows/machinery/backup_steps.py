"""The steps of backups and restores as Prefect tasks."""

from flows.machinery.closure_check import check_closure
from flows.machinery.progress import (
    copy_images_with_progress,
    dump_with_progress,
    restore_images_with_progress,
    restore_needed_images_with_progress,
)
from tasks.again import TRANSFER, WAIT
from tasks.backup.drill import rehearsal
from tasks.backup.night import gc, nightly
from tasks.backup.night.configuration import require_filesystem
from tasks.backup.restore import done, recovery, revive, served, told
from tasks.backup.restore.links import make_missing_links
from tasks.step import step

await_no_collection = step(gc.await_no_collection, "Wait for garbage collection to end", again=WAIT)
image_storage = step(require_filesystem, "Look where Harbor keeps its images", again=WAIT)
dump = step(dump_with_progress, "Dump the databases", again=TRANSFER)
configuration = step(nightly.configuration, "Save the configuration", again=TRANSFER)
links = step(nightly.links, "Save the links", again=TRANSFER)
copy_images = step(copy_images_with_progress, "Copy images", again=TRANSFER)
closure = step(check_closure, "Check that every blob is there", again=TRANSFER)
drill = step(rehearsal.drill, "Drill the restore", again=TRANSFER)

restore_databases = step(recovery.restore_databases, "Restore the databases")
stop_stray = step(revive.stop_stray, "Stop a Harbor of before this restore")
clear_stale_state = step(revive.clear_stale_state, "Settle what was under way")
restore_secrets = step(recovery.restore_secrets, "Put back secretkey and token keys")
restore_settings = step(recovery.restore_settings, "Put back the settings of harbor.yml and the override")
restore_links = step(recovery.restore_image_links, "Restore the links")
require_links = step(recovery.require_links, "Find the images on the NAS")
make_links = step(make_missing_links, "Make the links that are missing")
restore_images = step(restore_images_with_progress, "Restore images", again=TRANSFER)
restore_needed_images = step(
    restore_needed_images_with_progress, "Restore the images that are referred to", again=TRANSFER
)
ask_redis = step(revive.ask_redis, "Ask whether Redis can be emptied")
empty_caches = step(revive.empty_caches, "Empty the caches in Redis")
tell_restored = step(told.tell, "Tell the old machines which database counts")
note_started = step(done.note_started, "Note that this restore has started Harbor")
resave_schedule = step(revive.resave_schedule, "Save the schedule of garbage collection")
pull_sample = step(served.pull_sample, "Pull images of before")
