#!/bin/sh
# Run as root in a container of the bare distribution, with /out mounted: writes /out/base.tar, then installs
# PostgreSQL and writes /out/postgres.tar with only what that changed.
# Two layers, because the bundled database is rarely wanted. Arguments: the owner of the files, the packages.
set -eu
owner=$1
shift
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -qq -y install --no-install-recommends "$@"; }

# Neither the power nor the disk will fail within this minute in a way that matters.
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/unsafe-io
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -qq update
install "$@"

echo 'harbor:x:10000:10000:Harbor:/home/harbor:/bin/sh' >> /etc/passwd
echo 'harbor:x:10000:' >> /etc/group
echo 'postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh' >> /etc/passwd
echo 'postgres:x:999:' >> /etc/group
mkdir -p /home/harbor /harbor /storage /var/lib/postgresql
chown 999:999 /var/lib/postgresql

# What no container of Harbor ever opens, and what is the building machine's own business. The compiler is
# that of PostgreSQL's JIT, a third of the whole image; JIT is switched off in the bundled database.
cat > /tmp/exclude <<'LIST'
./out
./.dockerenv
./etc/apt/*
./etc/hosts
./etc/hostname
./etc/resolv.conf
./var/cache/*
./var/lib/apt/*
./var/lib/dpkg/*
./var/log/*
./tmp/*
./run/*
./usr/share/doc/*
./usr/share/man/*
./usr/share/info/*
./usr/share/locale/*
./usr/share/i18n/*
./usr/share/perl*
./usr/bin/perl*
./usr/lib/*/perl
./usr/lib/*/perl5
./usr/lib/*/perl-base
./usr/lib/*/libperl.so*
./usr/lib/*/libLLVM*
./usr/lib/llvm*
./usr/lib/*/libz3.so*
./usr/lib/postgresql/*/lib/bitcode
LIST
pack() { tar -C / --one-file-system --numeric-owner --exclude-from=/tmp/exclude "$@"; }

pack -cf /out/base.tar .
touch /tmp/base-is-packed
sleep 0.1

mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
install postgresql
# In place of the distribution's wrappers, which are Perl.
ln -s "$(echo /usr/lib/postgresql/*/bin)" /usr/lib/postgresql/current
(cd / && find . -xdev -path ./out -prune -o ! -type d -cnewer /tmp/base-is-packed -print0) > /tmp/changed
pack --null --no-recursion -T /tmp/changed -cf /out/postgres.tar
chown "$owner" /out/*.tar
