"""The steps of backups and restores as Prefect tasks."""

from flows.closure_check import check_closure
from flows.progress import copy_images_with_progress
from tasks.backup import drill as drills
from tasks.backup import gc, nightly
from tasks.step import step

await_no_collection = step(gc.await_no_collection, "Wait for garbage collection to end")
dump = step(nightly.dump, "Dump the databases")
configuration = step(nightly.configuration, "Save the configuration")
links = step(nightly.links, "Save the links")
copy_images = step(copy_images_with_progress, "Copy images")
closure = step(check_closure, "Check that every blob is there")
drill = step(drills.drill, "Drill the restore")
