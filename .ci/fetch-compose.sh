#!/bin/sh
# Print a command that is Docker Compose v2: the one installed here, else that of a later Debian release, unpacked
# and not installed. Debian 12 itself has 1.29.2, and no package of v2.
#   compose=$(fetch-compose.sh [DIR])
set -eu
dir=${1:-/tmp/dbjobq-compose} release=trixie
if docker compose version >/dev/null 2>&1; then
    echo "docker compose"
    exit
fi
if [ ! -x "$dir/docker-compose" ]; then
    mkdir -p "$dir/lists/partial" "$dir/cache"
    # shellcheck disable=SC2016  # apt's own placeholder
    mirror=$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' | sort -u | head -1)
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $mirror $release main" >"$dir/sources.list"
    apt() {
        apt-get -qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
            -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@" >&2
    }
    apt update
    (cd "$dir" && apt download docker-compose)
    dpkg-deb -x "$dir"/docker-compose_*.deb "$dir/package"
    cp "$dir/package/usr/libexec/docker/cli-plugins/docker-compose" "$dir/docker-compose"
fi
echo "$dir/docker-compose"
