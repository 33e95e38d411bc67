#!/bin/bash
# Run tests on a Python that this Debian does not have: newest-python.sh VERSION SUITE TEST... (3.14 forky tests/unit)
# In a root of its own, which debootstrap makes from SUITE, as root; nothing is left mounted. ROOT/venv is made anew each time.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 suite=$2 root=${DBJOBQ_PYTHON_HOME:-/tmp/dbjobq-python}-$1
shift 2

if [ ! -x "$root/usr/bin/python$version" ]; then
    rm -rf "$root"
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # an older debootstrap does not know newer suites
    debootstrap --variant=minbase --include="python$version,python$version-venv,ca-certificates,tzdata" \
        "$suite" "$root" "" "$script" >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; exit 1; }
fi
# A proxy's own certificate authority, and names, as the host has them.
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
rm -rf "$root/src" "$root/venv"
mkdir "$root/src"
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$root/src"

export root version SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
# shellcheck disable=SC2016 # its variables are the inner shell's
unshare --mount bash -euc '
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot "$root" /bin/bash -euc "
        cd /src
        python$version -m venv /venv
        /venv/bin/pip install --quiet --editable .[test,fast]
        DBJOBQ_TEST_SERVER=embedded exec /venv/bin/pytest \"\$@\"
    " tests "$@"
' outer "$@"
