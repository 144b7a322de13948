"""Harbor's steps as Prefect tasks."""

from tasks.again import IMAGES, WAIT
from tasks.harbor import (
    adoption,
    api,
    aside,
    back,
    boot,
    compose,
    installer,
    migrate,
    override,
    prepare,
    proof,
    repoint,
    secrets,
    storage,
)
from tasks.operation.timely import timely
from tasks.step import step

install = step(installer.install, "Install Harbor", again=IMAGES)
bind_registry = step(storage.bind_registry, "Bind the registry's data to the NAS")
share_secrets = step(secrets.share, "Share secretkey and token keys")
share_override = step(override.share, "Pin the shared secrets")
migrate_from_bundled = step(migrate.from_bundled, "Take over the bundled database")
migrate_from_external = step(migrate.from_external, "Take over the external database")
rehearse_dump = step(migrate.rehearse_external, "Rehearse the dump of the external database")
stop_site_harbor = step(migrate.stop_writers, "Stop the site's Harbor")
set_pair_aside = step(aside.set_aside, "Set the first adoption's database aside")
require_empty_pair = step(migrate.require_empty, "See that the pair is empty")
begin_adoption = step(adoption.begin, "Keep the old Harbor's configuration")
keep_secrets = step(adoption.keep_secrets, "Keep the old Harbor's secretkey and token keys")
keep_settings = step(adoption.keep_settings, "Keep the old Harbor's settings")
copy_images = step(adoption.copy_while_it_serves, "Copy the images while the old Harbor serves")
copy_images_again = step(adoption.copy_once, "Copy the images that came since")
refuse_writes = step(adoption.refuse_writes, "Make the old Harbor read-only")
stop_old_writers = step(migrate.stop_writers, "Stop what writes in the old Harbor")
allow_writes = step(adoption.allow_writes, "End read-only mode in the pair")
take_down_old = step(adoption.take_down, "Take the old Harbor down")
put_back_old = step(adoption.put_back, "Put the old Harbor back")
note_adoption = step(adoption.set_phase, "Note how far the adoption is")
configure = step(prepare.configure, "Write harbor.yml")
prepare_configuration = step(prepare.prepare, "Run Harbor's prepare")
up = step(compose.up, "Start Harbor")
bring_back = step(timely(back.bring_back), "Bring Harbor back")
complete = step(timely(back.complete), "Start the rest of Harbor")
start_at_boot = step(boot.start_at_boot, "Have Harbor start at boot")
wait_migrated = step(api.wait_migrated, "Wait for Harbor's schema", again=WAIT)
wait_healthy = step(api.wait_healthy, "Wait for Harbor to be healthy")
wait_serving = step(api.wait_serving, "Wait for Harbor to serve")
push_and_pull = step(proof.push_and_pull, "Push and pull through the load balancer")
found_on_standby = step(proof.found_on_standby, "Find the push on the standby")
stage = step(timely(repoint.stage), "Stage Harbor for the new primary")
start_next = step(timely(repoint.start_next), "Start Harbor's next core")
repoint_core = step(timely(repoint.repoint_core), "Repoint Harbor")
repoint_by_prepare = step(timely(repoint.by_prepare), "Repoint Harbor through prepare")
foresee = step(repoint.foresee, "Work out Harbor's next core")
restart_jobservice = step(timely(repoint.restart_jobservice), "Restart Harbor's jobservice")
write_through_balancer = step(proof.write_through_balancer, "Write through the load balancer")
