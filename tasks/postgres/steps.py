"""The pair's steps as Prefect tasks."""

from tasks.again import COPY, PACKAGES
from tasks.postgres import archive, cluster, packages, proof, standby
from tasks.step import step

install = step(packages.install, "Install PostgreSQL", again=PACKAGES)
install_archiver = step(archive.install, "Install the WAL archiver")
create_cluster = step(cluster.create, "Create the database cluster")
configure = step(cluster.configure, "Configure PostgreSQL")
start = step(cluster.start, "Start PostgreSQL")
create_roles = step(cluster.create_roles, "Create roles and database")
set_passwords = step(cluster.set_passwords, "Check the roles' passwords")
create_slot = step(standby.create_slot, "Create the replication slot")
copy_configuration = step(standby.copy_configuration, "Copy the configuration from the primary")
build_standby = step(standby.build, "Build the standby", again=COPY)
replicate_marker = step(proof.replicate_marker, "Prove replication with a marker")
