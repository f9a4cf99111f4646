#!/bin/sh
# Runs uv for this checkout, even on a machine that has only Python and pip.
#
#   tools/uv.sh sync --all-packages
#
# The script uses uv from PATH if it is new enough, otherwise from the checkout's own .uv/, which is made on first use.
# Python 3.12 or 3.13 must be installed; it is not downloaded. UV_PYTHON selects another Python, and
# UV_PYTHON_DOWNLOADS=automatic lets uv download one.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
own="$root/.uv"
minimum=0.9

say() { printf '%s\n' "$*" >&2; }

new_enough() {
    version=$("$1" --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$version" ] || return 1
    [ "$(printf '%s\n%s\n' "$minimum" "$version" | sort -V | head -n1)" = "$minimum" ]
}

# pyenv has shims for versions that it refuses to run, so each candidate is tried.
some_python() {
    for name in python3.12 python3.13 python3 python /usr/bin/python3; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1 && {
            command -v "$name"
            return 0
        }
    done
    return 1
}

install_uv() {
    python=$(some_python) || {
        say "error: no working Python found; install Python 3.12 with pip and try again"
        exit 1
    }
    say "installing uv into ${own#"$root"/}/ (once)"
    # Debian packages the venv module separately; without it, pip can still unpack uv into a folder.
    if "$python" -m venv "$own" >/dev/null 2>&1 && "$own/bin/python" -m pip install --quiet "uv>=$minimum" >&2; then
        :
    elif ! "$python" -m pip install --quiet --upgrade --target "$own" "uv>=$minimum" >&2; then
        say "error: pip could not install uv; check the network and pip's settings, or put uv >= $minimum on PATH"
        exit 1
    fi
}

uv=$(command -v uv || true)
if [ -z "$uv" ] || ! new_enough "$uv"; then
    uv="$own/bin/uv"
    new_enough "$uv" || install_uv
fi

export UV_PYTHON_DOWNLOADS="${UV_PYTHON_DOWNLOADS:-never}"
# Do not fail if a registry is slow or busy for a short time.
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-120}" UV_HTTP_RETRIES="${UV_HTTP_RETRIES:-6}"
# Ignore an active environment, since it does not belong to this checkout.
unset VIRTUAL_ENV CONDA_PREFIX

if [ -z "${UV_PYTHON:-}" ] && ! "$uv" python find --system 3.12 >/dev/null 2>&1; then
    for candidate in "$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")"/versions/3.1[23]*/bin/python \
        "$("$uv" python find --system '>=3.12,<3.14' 2>/dev/null || true)"; do
        if [ -x "$candidate" ]; then
            UV_PYTHON=$candidate
            export UV_PYTHON
            break
        fi
    done
    if [ -z "${UV_PYTHON:-}" ] && [ "$UV_PYTHON_DOWNLOADS" = never ]; then
        say "error: no Python 3.12 or 3.13 found"
        say "  install one (pyenv install 3.12), or name it:  UV_PYTHON=/path/to/python3.12 make ..."
        say "  or let uv fetch one:                           UV_PYTHON_DOWNLOADS=automatic make ..."
        exit 1
    fi
fi

exec "$uv" "$@"
