# shellcheck shell=bash
# The set-up that the other scripts share. Source this file with `set -euo pipefail`.
#
#   set_up EXTRAS   installs system packages, .venv and the project; quick the second time
#   view            array: a command prefix under which every installed runtime can run

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
cd "$root" || exit

# If our stdin is closed, the next opened file would become stdin.
if ! { true <&0; } 2>/dev/null; then
    exec </dev/null
fi
# Debian keeps runc out of an ordinary user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# Other Python environments stay out of ours.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX
# If no compiled modules were kept, each start of Python would compile all of ours: half a second.
unset PYTHONDONTWRITEBYTECODE

say() { printf '== %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

die() {
    say "$*"
    exit 1
}

# --- system packages ---------------------------------------------------------------------------

static_busybox() { have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

works() { # COMPILER: can it compile a program? (gcc may lack the C library's headers)
    local program result=0
    program=$(mktemp)
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' |
        "$1" -x c -o "$program" - >/dev/null 2>&1 || result=1
    rm -f "$program"
    return "$result"
}

can_make_venv() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() { # prints a Python >= 3.11 that can make virtual environments
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        if have "$name" && can_make_venv "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

missing_packages() { # prints the Debian names of the needed packages that are missing
    have crun || echo crun
    have runc || echo runc
    static_busybox || echo busybox-static
    have newuidmap || echo uidmap
    have musl-gcc || echo musl-tools
    case $extras in *test*) have runsc || echo runsc ;; esac # for tests of checkpoints
    if ! have cc; then
        printf '%s\n' gcc libc6-dev
    elif ! fresh && ! works cc; then
        echo libc6-dev
    fi
    if ! fresh && ! find_python >/dev/null; then
        echo python3-venv
    fi
}

apt() {
    local command=(
        env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
        apt-get -q -o DPkg::Lock::Timeout=120 "$@"
    )
    if [ "$(id -u)" != 0 ]; then
        command=(sudo -n "${command[@]}")
    fi
    "${command[@]}" </dev/null >"$apt_log" 2>&1
}

# No package is removed, except a dynamic busybox, which the static one replaces.
apt_install() {
    local keep=--no-remove
    [ "$*" != busybox-static ] || keep=
    apt install -y --no-install-recommends $keep "$@"
}

install_packages() { # PACKAGE...: installs as many of them as possible
    local package apt_log
    apt_log=$(mktemp)
    say "installing $*"
    # Update apt's package lists only if an install fails: they may be missing or too old.
    if ! apt_install "$@"; then
        apt update || say "apt-get update failed: $(tail -n 1 "$apt_log")"
        if ! apt_install "$@"; then
            for package in "$@"; do
                apt_install "$package" || say "$package: $(grep '^E:' "$apt_log" | head -n 1)"
            done
        fi
    fi
    rm -f "$apt_log"
}

newer_python() { # an older Ubuntu has packages of newer Pythons, beside python3
    local name
    find_python >/dev/null && return
    for name in python3.13-venv python3.12-venv python3.11-venv; do
        if apt-cache show "$name" >/dev/null 2>&1; then
            install_packages "$name"
            return
        fi
    done
}

may_install() { have apt-get && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

set_up_system() {
    local missing given_up=$venv/.not-to-be-had
    missing=$(missing_packages | xargs)
    [ -n "$missing" ] || return 0
    if may_install && [ "$missing" != "$(cat "$given_up" 2>/dev/null)" ]; then
        # shellcheck disable=SC2086  # the variable is a list
        install_packages $missing
        fresh || newer_python
        missing=$(missing_packages | xargs)
        tried=$missing
    fi
    if [ -n "$missing" ]; then
        say "missing: $missing"
        say "to install by hand, as root: apt-get update && apt-get install $missing"
        say 'going on without these packages (after rm -r .venv the next run tries again)'
    fi
}

# --- the virtual environment -------------------------------------------------------------------

# A hash of the checkout's place, the compilers and the sources of the installed programs.
fingerprint() {
    local file
    {
        printf '%s\n' "$root"
        printf '%s\n' "${CC:-}"
        command -v musl-gcc cc || true
        # An editable install lists the file of each module, so a new module needs a new install.
        printf '%s\n' supervisor/*.py supervisor/*/*.py supervisor/*/*/*.py
        for file in pyproject.toml CMakeLists.txt supervisor/native/*.[ch] supervisor/native/*.txt; do
            printf '%s\n' "$file"
            cat "$file"
        done
    } | sha256sum
}

stamp() { printf '%s' "$venv/.installed${extras:+-$extras}"; }

fresh() { # is everything installed, from these sources?
    [ -x "$venv/bin/python" ] && [ "$(cat "$(stamp)" 2>/dev/null)" = "$(fingerprint)" ]
}

pip_install() {
    "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$@"
}

set_up_venv() {
    local python what=.
    if ! fresh; then
        have cc || have gcc || have clang || say 'no C compiler is installed: the build will fail'
        if ! [ -x "$venv/bin/python" ] || ! can_make_venv "$venv/bin/python"; then
            python=$(find_python) ||
                die 'no Python >= 3.11 with venv: install python3 and python3-venv, or put one on PATH'
            say "making .venv with $("$python" --version)"
            "$python" -m venv --clear "$venv"
        fi
        [ -z "$extras" ] || what=".[$extras]"
        say "installing $what into .venv"
        rm -f "$venv"/.installed*
        pip_install --editable "$what" || die 'pip install failed (see the reason above)'
        fingerprint >"$(stamp)"
    fi
    # The list is in .venv, so after rm -r .venv the next run tries the packages again.
    [ -z "${tried:-}" ] || printf '%s\n' "$tried" >"$venv/.not-to-be-had"
}

set_up() { # EXTRAS: extras of pyproject.toml, separated by commas; may be empty
    extras=$1
    set_up_system
    set_up_venv
    set_up_view
}

# --- the view of the cgroups -------------------------------------------------------------------

# crun refuses hybrid cgroups: version 1 hierarchies together with a version 2 hierarchy. The view
# is a mount namespace of our own without the version 2 hierarchy; the machine stays unchanged.
# SUPERVISOR_OWN_MOUNTS names that namespace: tests mount only there.
view=()

set_up_view() {
    local unified=/sys/fs/cgroup/unified
    if [ "$(id -u)" != 0 ] || ! grep -q " $unified cgroup2 " /proc/self/mounts; then
        return 0
    fi
    # shellcheck disable=SC2016  # the inner shell expands it
    view=(unshare --mount --propagation private sh -c '
        umount "$0" || exit
        SUPERVISOR_OWN_MOUNTS=$(readlink /proc/self/ns/mnt)
        export SUPERVISOR_OWN_MOUNTS
        exec "$@"' "$unified")
    if ! "${view[@]}" true 2>/dev/null; then
        view=()
        say "crun can't run with hybrid cgroups, and $unified can't be unmounted for crun here"
    fi
}
