"""Harbor's steps as Prefect tasks."""

from tasks.harbor import (
    api,
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
from tasks.step import step

install = step(installer.install, "Install Harbor")
bind_registry = step(storage.bind_registry, "Bind the registry's data to the NAS")
share_secrets = step(secrets.share, "Share secretkey and token keys")
share_override = step(override.share, "Pin the shared secrets")
migrate_from_bundled = step(migrate.from_bundled, "Take over the bundled database")
configure = step(prepare.configure, "Write harbor.yml")
prepare_configuration = step(prepare.prepare, "Run Harbor's prepare")
up = step(compose.up, "Start Harbor")
start_at_boot = step(boot.start_at_boot, "Have Harbor start at boot")
wait_migrated = step(api.wait_migrated, "Wait for Harbor's schema")
wait_healthy = step(api.wait_healthy, "Wait for Harbor to be healthy")
push_and_pull = step(proof.push_and_pull, "Push and pull through the load balancer")
found_on_standby = step(proof.found_on_standby, "Find the push on the standby")
stage = step(repoint.stage, "Stage Harbor for the new primary")
start_next = step(repoint.start_next, "Start Harbor's next core")
repoint_core = step(repoint.repoint_core, "Repoint Harbor")
repoint_by_prepare = step(repoint.by_prepare, "Repoint Harbor through prepare")
foresee = step(repoint.foresee, "Work out Harbor's next core")
restart_jobservice = step(repoint.restart_jobservice, "Restart Harbor's jobservice")
write_through_balancer = step(proof.write_through_balancer, "Write through the load balancer")
