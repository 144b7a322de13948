#!/bin/sh
# Run by mmdebstrap with the new root directory: writes base.tar, then installs PostgreSQL and writes
# postgres.tar with only what that changed. Two layers, because the bundled database is rarely wanted.
set -eu
root=$1 out=$2

echo 'harbor:x:10000:10000:Harbor:/home/harbor:/bin/sh' >> "$root/etc/passwd"
echo 'harbor:x:10000:' >> "$root/etc/group"
echo 'postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh' >> "$root/etc/passwd"
echo 'postgres:x:999:' >> "$root/etc/group"
mkdir -p "$root/home/harbor" "$root/harbor" "$root/storage" "$root/var/lib/postgresql"
chown 999:999 "$root/var/lib/postgresql"

# The host's package sources, lists and caches are its own business and stay out of the image.
cat > "$out/exclude" <<'LIST'
./etc/apt/*
./etc/resolv.conf
./etc/hostname
./var/cache/*
./var/lib/apt/*
./var/log/*
./tmp/*
./proc/*
./sys/*
./dev/*
./run/*
LIST
pack() { tar -C "$root" --one-file-system --numeric-owner --exclude-from="$out/exclude" "$@"; }

pack -cf "$out/base.tar" .
touch "$out/base.done"
sleep 0.1

# JIT is switched off in the bundled database; its compiler would be a third of the whole image.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d" "$root/etc/postgresql-common"
printf 'path-exclude=/usr/lib/*/libLLVM*\npath-exclude=/usr/lib/*/libz3*\n' > "$root/etc/dpkg/dpkg.cfg.d/no-jit"
echo 'create_main_cluster = false' > "$root/etc/postgresql-common/createcluster.conf"
chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >&2
printf '%s\n' './usr/share/perl*' './usr/lib/*/perl' './usr/lib/*/perl5' >> "$out/exclude"
(cd "$root" && find . -xdev ! -type d -cnewer "$out/base.done" -print0) > "$out/changed"
pack --null --no-recursion -T "$out/changed" -cf "$out/postgres.tar"
