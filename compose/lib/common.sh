# Messages, ports and processes: what every other part of the stack stands on. Sourced by compose/stack.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
step() { printf '==> %s\n' "$*" >&2; }
die() { printf 'stack: %s\n' "$*" >&2; exit 1; }

# From here on a signal is an exit, so that the trap of EXIT is run however this ends.
end_on_signals() {
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# The process id files of what this command has started.
SPAWNED=()

# Should this command end early, what it has started ends with it; what ran before it stays.
undo_early_end() {
    trap 'end_spawned' EXIT
    end_on_signals
}

end_spawned() {
    local i
    for ((i = ${#SPAWNED[@]} - 1; i >= 0; i--)); do end "${SPAWNED[i]}"; done
}

# Asks the kernel for a port of the loopback interface that nobody is bound to: the first wanted one that is free, else any.
free_port() {
    perl -MSocket -e '
        for my $port (@ARGV, 0) {
            socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
            setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1);
            next unless bind($s, sockaddr_in($port, INADDR_LOOPBACK));
            print +(sockaddr_in(getsockname $s))[0], "\n";
            exit 0;
        }
        die "no free port\n"' "$@"
}

# When a process was started, in clock ticks since boot. A process id together with this is never another process.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086 # the fields of stat are words
    set -- $stat
    [ "$1" != Z ] || return 1
    printf '%s\n' "${20}"
}

# spawn PIDFILE LOG COMMAND...: starts a process that outlives this script and that Ctrl-C does not reach; it is ended by `end`.
spawn() {
    local pidfile=$1 log=$2 pid
    shift 2
    if running "$pidfile" >/dev/null; then die "$(basename "$pidfile" .pid) runs already"; fi
    mkdir -p "$(dirname "$pidfile")" "$(dirname "$log")"
    SPAWNED+=("$pidfile")
    # 9 is the lock of the stack's folder: a child must not hold it.
    setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
    pid=$!
    disown "$pid"
    printf '%s %s\n' "$pid" "$(started_at "$pid" || echo gone)" >"$pidfile"
}

# The id of the process that `spawn` started, if it still runs.
running() {
    local pid start
    [ -f "$1" ] && read -r pid start <"$1" || return 1
    [ "$(started_at "$pid")" = "$start" ] || return 1
    printf '%s\n' "$pid"
}

# end PIDFILE [SIGNAL [SECONDS]]: asks the process and what it started to stop, waits, and kills it when it does not.
end() {
    local pidfile=$1 signal=${2:-TERM} seconds=${3:-30} pid tries
    if pid=$(running "$pidfile"); then
        kill -s "$signal" -- "-$pid" 2>/dev/null || true
        for ((tries = seconds * 10; tries > 0; tries--)); do
            running "$pidfile" >/dev/null || break
            sleep 0.1
        done
        if running "$pidfile" >/dev/null; then
            say "$(basename "$pidfile" .pid) did not stop within $seconds s and was killed"
            kill -s KILL -- "-$pid" 2>/dev/null || true
        fi
    fi
    rm -f "$pidfile"
}

# wait_until SECONDS PIDFILE COMMAND...: until the command succeeds; fails at once when the process is gone.
wait_until() {
    local seconds=$1 pidfile=$2 tries
    shift 2
    for ((tries = seconds * 10; tries > 0; tries--)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        running "$pidfile" >/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# http_status HOST:PORT PATH: the status of a GET, without curl.
http_status() {
    local version status
    {
        exec 3<>"/dev/tcp/${1%:*}/${1##*:}" &&
            printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" >&3 &&
            IFS=' ' read -r -t 5 version status _ <&3
    } 2>/dev/null || { exec 3>&- || true; return 1; }
    exec 3>&-
    : "$version"
    printf '%s\n' "${status%$'\r'}"
}

# Whether somebody listens on a port of the loopback interface.
tcp_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# tcp_line PORT TEXT: sends a line, prints the first line of the answer.
tcp_line() {
    local line
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf '%s\r\n' "$2" >&3
        IFS= read -r -t 5 line <&3
        printf '%s\n' "${line%$'\r'}"
    ) 2>/dev/null
}

# Root, or by way of sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*"
    fi
}
