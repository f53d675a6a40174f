#!/bin/sh
# Installs what Minuet needs into this checkout: a virtual environment from a
# hash-locked list and, when it runs as root on Debian, system packages by name.
# As another user it says which are missing and what is lost without them; it
# never calls sudo. Usage: scripts/install.sh run|test|docs
set -eu
cd "$(dirname "$0")/.."
wanted=${1:-run}

# package:what is lost without it
# Debian names the package that makes virtual environments after its own Python.
debian_python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null || echo python3)
packages_run="$debian_python-venv:no virtual environment can be made
git:no repository can be fetched or pushed
bubblewrap:applications run in the weaker isolation class landlock, and nothing can be built
iproute2:instances get no network of their own
nftables:instances are not kept away from this machine
ca-certificates:builds cannot verify package sources
openssh-client:private repositories cannot be read with a deploy key"
packages_test='postgresql:the stores are tested on SQLite only
curl:the tests of printed addresses are skipped'

packages=$packages_run
[ "$wanted" = test ] && packages="$packages
$packages_test"

install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null; }
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
        # One at a time where they cannot be had together: none that is missing takes the others with it.
        # shellcheck disable=SC2086 # a list of names
        { apt-get update -q >/dev/null && install $missing; } || for name in $missing; do
            install "$name" || echo "  $name could not be installed; going on without it" >&2
        done
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
digest() { if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi; }
want=$(cat "$list" pyproject.toml | digest | cut -d' ' -f1)

# The processes of the platform may not write beside the source; what is not compiled here, each start compiles anew.
compile_source() { .venv/bin/python -m compileall -q src >/dev/null 2>&1 || true; }

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    compile_source
    exit 0
fi

if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    "$python" -m venv .venv || {
        rm -rf .venv
        echo "No virtual environment could be made: install the Debian package $debian_python-venv." >&2
        exit 1
    }
fi
echo "Installing Python packages ($list) ..." >&2
.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r "$list"
.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
echo "$want" >"$stamp"
compile_source
