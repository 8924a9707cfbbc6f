# The demo's traffic. Sourced by compose/stack.
# shellcheck shell=bash

# traffic_run DIR [--seconds N] [--rate N] [--seed N]: writes to the sample as the user `app`.
traffic_run() {
    local dir=$1 seconds=0 rate=100 seed
    seed=$(date +%s)
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --seconds) seconds=${2-} ;;
            --rate) rate=${2-} ;;
            --seed) seed=${2-} ;;
            *) die "\`$1\` is not known to traffic; known: --seconds N, --rate N, --seed N" ;;
        esac
        case ${2-} in '' | *[!0-9]*) die "\`$1\` needs a number" ;; esac
        shift 2
    done
    [ -f "$dir/env" ] || die "no servers run in $dir; start them with \`compose/stack up\`, or name another folder with PLUMBLINE_STACK_DIR"
    # shellcheck source=/dev/null
    . "$dir/env"
    say "traffic: about $rate changes a second, seed $seed$([ "$seconds" = 0 ] || echo ", for $seconds s")"
    if [ "$seconds" != 0 ]; then
        traffic_sql | traffic_client || die "the traffic ended early"
        return 0
    fi
    until traffic_sql | traffic_client; do
        say "traffic: the client ended; again in a second"
        seed=$((seed + 1))
        sleep 1
    done
}

traffic_sql() { awk -v seed="$seed" -v rate="$rate" -v seconds="$seconds" -f "$COMPOSE/lib/traffic.awk"; }

traffic_client() {
    MYSQL_PWD=$MYSQL_APP_PASSWORD "$MYSQL_CLIENT" --no-defaults --default-character-set=utf8mb4 \
        --init-command="SET time_zone = '+00:00'" -u"$MYSQL_APP_USER" -h"$MYSQL_HOST" -P"$MYSQL_PORT" "$MYSQL_DATABASE"
}
