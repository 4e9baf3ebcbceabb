# packages.sh - sourced by quickstart.sh and tests/run.sh: installs what is missing, and only that.
#
# need_packages PACKAGE..: Debian 12 and Ubuntu 24.04 names. Where nothing is missing, neither the
# network nor root is needed. On another system the names tell what to install by hand.

# The command or header that shows that a package is there, however it was installed.
package_present()
{
    case $1 in
    cmake | gcc | clang | clang-* | flex | bison | gzip | python3) command -v "$1" ;;
    ninja-build) command -v ninja ;;
    gnuplot-nox) command -v gnuplot ;;
    xz-utils) command -v xz ;;
    bible-kjv) command -v bible ;;
    libjansson-dev) static_library jansson.h jansson ;;
    zlib1g-dev) static_library zlib.h z ;;
    libzstd-dev) static_library zstd.h zstd ;;
    libcminpack-dev) header cminpack-1/cminpack.h ;;
    libnlopt-dev) header nlopt.h ;;
    libc6-dev) header stdio.h ;;
    *) dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac >/dev/null 2>&1
}

header()
{
    echo "#include <$1>" | ${CC:-gcc} -E -x c - -o /dev/null 2>/dev/null
}

static_library()
{
    header "$1" && [ -e "$(${CC:-gcc} -print-file-name="lib$2.a")" ]
}

need_packages()
{
    missing=
    for package in "$@"; do
        package_present "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing:$missing (Debian's names). Install them and run this again." >&2
        return 1
    fi
    as_root=env
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "missing:$missing. As root: apt-get install$missing" >&2
            return 1
        fi
        as_root="sudo env"
    fi
    echo "installing$missing" >&2
    log=$(mktemp)
    # shellcheck disable=SC2086 -- the lists are meant to split
    if $as_root apt-get update >"$log" 2>&1 &&
        $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            $missing >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    echo "apt-get failed; the whole log is in $log" >&2
    return 1
}
