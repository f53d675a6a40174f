#!/bin/sh
# Installs what Minuet needs into this checkout: a virtual environment from a
# hash-locked list and, when it runs as root on Debian, system packages by name.
# As another user it says which are missing and what is lost without them; it
# never calls sudo. Usage: scripts/install.sh run|test|docs
set -eu
cd "$(dirname "$0")/.."
wanted=${1:-run}

# package : what is lost without it
packages_run='python3.11-venv:no virtual environment can be made
git:no repository can be fetched or pushed
bubblewrap:applications run in the weaker isolation class "landlock", and nothing can be built
iproute2:instances get no network of their own
nftables:instances are not kept away from this machine
ca-certificates:builds cannot verify package sources
openssh-client:private repositories cannot be read with a deploy key'
packages_test='postgresql:the stores are tested on SQLite only
curl:the tests of printed addresses are skipped'

packages=$packages_run
[ "$wanted" = test ] && packages="$packages
$packages_test"

have() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing=''
if command -v dpkg-query >/dev/null 2>&1; then
    while IFS=: read -r name loss; do
        have "$name" || missing="$missing $name"
    done <<EOF
$packages
EOF
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing Debian packages:$missing" >&2
        apt-get update -q >/dev/null
        # shellcheck disable=SC2086 # a list of names
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
    else
        echo 'Missing system packages (install them as an administrator):' >&2
        echo "$packages" | while IFS=: read -r name loss; do
            case " $missing " in *" $name "*) printf '  %-16s without it %s\n' "$name" "$loss" >&2 ;; esac
        done
    fi
fi

# The interpreter must be readable by the users that applications run as, so
# Debian's own comes first; one below a home folder comes last.
for python in /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 python3.11 python3; do
    command -v "$python" >/dev/null 2>&1 && break
done
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo 'Minuet needs Python 3.11 or later.' >&2
    exit 1
}

list=requirements/$wanted.txt
stamp=.venv/installed-$wanted
want=$(cat "$list" pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    "$python" -m venv .venv || {
        rm -rf .venv
        echo 'No virtual environment could be made: install the Debian package python3.11-venv.' >&2
        exit 1
    }
fi
echo "Installing Python packages ($list) ..." >&2
.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r "$list"
.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
echo "$want" >"$stamp"
