# Installs what is missing: PostgreSQL and tools as Debian packages, everything else unpacked into the cache.
# No service of a package is left running, no system cluster is made, nothing is mounted. Sourced by compose/stack.
# shellcheck shell=bash

POSTGRES_BIN=
MYSQL_ROOT=$CACHE/mysql-$MYSQL_SERIES

# install_stack [--for-tests | --full]: may be called as often as one likes; does nothing where nothing is missing.
install_stack() {
    alone install_pair "$@"
    find_postgres || die "PostgreSQL was installed, but its \`initdb\` was not found"
    case ${1-} in
        '') ;;
        --for-tests) install_services redis kafka connect jdbc prometheus ;;
        --full) install_services redis kafka connect jdbc prometheus otlp ;;
        *) die "\`$1\` is not known to install; known: --for-tests, --full" ;;
    esac
}

# Runs one installation at a time; the lock goes with the subshell.
alone() {
    mkdir -p "$CACHE/bin"
    (
        flock -n 8 || { say "waiting for another installation"; flock 8; }
        "$@"
    ) 8>"$CACHE/lock"
}

install_pair() {
    install_packages "$@"
    install_mysql
}

# Sets POSTGRES_BIN: the pinned major version, else the newest that is there.
find_postgres() {
    local bin
    for bin in "/usr/lib/postgresql/$POSTGRES_MAJOR/bin" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5 -rn); do
        if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then
            POSTGRES_BIN=$bin
            return 0
        fi
    done
    return 1
}

install_packages() {
    local missing=()
    find_postgres || missing+=("postgresql-$POSTGRES_MAJOR")
    [ -x "$MYSQL_ROOT/usr/sbin/mysqld" ] || command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    if [ "${1-}" = --for-tests ]; then
        command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
        command -v chromedriver >/dev/null || missing+=(chromium-driver)
    fi
    # Rust links by it, and librdkafka and SQLite are built of their sources.
    if [ -z "${PLUMBLINE_STACK_AGENT-}" ] && ! { command -v cc && command -v c++ && command -v make; } >/dev/null; then missing+=(build-essential); fi
    # Kafka by TLS: librdkafka is linked with the system's OpenSSL.
    if [ -z "${PLUMBLINE_STACK_AGENT-}" ] && ! pkg-config --exists openssl 2>/dev/null; then missing+=(pkg-config libssl-dev); fi
    apt_install "${missing[@]}"
}

# apt_install PACKAGE...: as Debian packages, with no service started. No package is no work.
apt_install() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this needs Debian's apt-get for: $* (elsewhere use compose.yaml with Docker)"
    step "installing $*"
    (
        trap restore_services EXIT
        trap 'exit 130' INT TERM HUP
        hold_services
        export DEBIAN_FRONTEND=noninteractive
        apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null 8>&-; }
        apt_get update >"$CACHE/apt.log" 2>&1 || say "\`apt-get update\` did not succeed; going on with the lists that are there"
        apt_get install -y --no-install-recommends "$@" >>"$CACHE/apt.log" 2>&1 ||
            { tail -n 20 "$CACHE/apt.log" >&2; die "apt-get could not install: $*"; }
    )
}

NO_CLUSTER=/etc/postgresql-common/createcluster.d/plumbline-stack.conf
POLICY=/usr/sbin/policy-rc.d

# While packages are installed: no service is started, PostgreSQL makes no cluster of the system's.
# A policy that the machine has of its own is left as it is.
hold_services() {
    as_root mkdir -p "$(dirname "$NO_CLUSTER")"
    echo 'create_main_cluster = false' | as_root tee "$NO_CLUSTER" >/dev/null
    if [ ! -e "$POLICY" ]; then
        printf '#!/bin/sh\n# plumbline-stack: only while it installs packages\nexit 101\n' | as_root tee "$POLICY" >/dev/null
        as_root chmod 755 "$POLICY"
    fi
}

restore_services() {
    as_root rm -f "$NO_CLUSTER"
    if grep -qs plumbline-stack "$POLICY"; then as_root rm -f "$POLICY"; fi
}

# The archive that this machine's own apt takes Debian's packages from.
debian_mirror() {
    local mirror=${PLUMBLINE_STACK_MIRROR-}
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
    [ -n "$mirror" ] || die "the apt sources name no Debian archive; set PLUMBLINE_STACK_MIRROR to one"
    printf '%s\n' "${mirror%/}"
}

# MySQL's server and client with the libraries of their own release, unpacked and never installed:
# the wrappers start them through the dynamic loader that came with them, so that no chroot and no mount is needed.
install_mysql() {
    local root=$MYSQL_ROOT unpacked=$MYSQL_ROOT.unpacking
    if [ ! -x "$root/usr/sbin/mysqld" ]; then
        step "unpacking MySQL $MYSQL_SERIES ($MYSQL_DEBIAN_SUITE) into the cache"
        rm -rf "$unpacked"
        mmdebstrap --quiet --variant=extract --include=mysql-server-core,mysql-client-core \
            --aptopt='Acquire::Check-Valid-Until "false"' "$MYSQL_DEBIAN_SUITE" "$unpacked" "$(debian_mirror)" \
            >"$CACHE/mmdebstrap.log" 2>&1 8>&- </dev/null ||
            { tail -n 20 "$CACHE/mmdebstrap.log" >&2; rm -rf "$unpacked"; die "mmdebstrap could not unpack MySQL from $MYSQL_DEBIAN_SUITE"; }
        rm -rf "$unpacked"/usr/share/{doc,man,locale,perl,info} "$unpacked"/usr/lib/*/perl "$unpacked/dev"
        rm -rf "$root"
        mv "$unpacked" "$root"
    fi
    write_wrapper mysqld usr/sbin/mysqld \
        "--basedir=$root/usr" "--lc-messages-dir=$root/usr/share/mysql" \
        "--character-sets-dir=$root/usr/share/mysql/charsets" "--plugin-dir=$root/usr/lib/mysql/plugin"
    write_wrapper mysql usr/bin/mysql "--character-sets-dir=$root/usr/share/mysql/charsets" "--plugin-dir=$root/usr/lib/mysql/plugin"
    case $("$CACHE/bin/mysqld" --version) in
        *"Ver $MYSQL_SERIES."*) ;;
        *) say "warning: $MYSQL_DEBIAN_SUITE has moved on: this is $("$CACHE/bin/mysqld" --version | grep -o 'Ver [^ ]*'), and versions.env names $MYSQL_SERIES" ;;
    esac
}

# write_wrapper NAME PROGRAM OPTION...: a program of the MySQL root as a command in the cache's bin folder.
# An option file named first stays first, as MySQL's programs want it; without one, none is read.
write_wrapper() {
    local name=$1 program=$2 loader libs
    shift 2
    for loader in "$MYSQL_ROOT"/usr/lib64/ld-linux-*.so.* "$MYSQL_ROOT"/usr/lib/ld-linux-*.so.* "$MYSQL_ROOT"/usr/lib/*/ld-linux-*.so.* ""; do
        [ ! -x "$loader" ] || break
    done
    [ -n "$loader" ] || die "the unpacked MySQL has no dynamic loader"
    libs=$MYSQL_ROOT/usr/lib/$(uname -m)-linux-gnu:$MYSQL_ROOT/usr/lib/mysql/private
    {
        printf '#!/bin/sh\n# Written by compose/stack.\n'
        printf 'case ${1-} in --defaults-file=*|--defaults-extra-file=*|--no-defaults) first=$1; shift ;; *) first=--no-defaults ;; esac\n'
        printf 'exec'
        printf ' %q' "$loader" --library-path "$libs" "$MYSQL_ROOT/$program"
        printf ' "$first"'
        printf ' %q' "$@"
        printf ' "$@"\n'
    } >"$CACHE/bin/.$name.$$"
    chmod 755 "$CACHE/bin/.$name.$$"
    mv "$CACHE/bin/.$name.$$" "$CACHE/bin/$name"
}
