# The whole of it: the pair, the other parts, the sample, the agent and traffic, started and stopped together. Sourced by compose/stack.
# shellcheck shell=bash
#
# STACK/servers   the pair (servers.sh)      STACK/services   the other parts (services.sh); `demo` has none of them
# STACK/agent     the agent's data folder    STACK/logs       what the agent and the traffic said
# STACK/run       process ids, and what this stack is made of

AGENT=
AGENT_SETTINGS=()

# What agents are told: names out of services.env and servers/env. Prometheus comes to them by itself.
# The agent copies and applies from the binlog; in the full stack a second one, the watcher, follows the same source by Kafka and checks what
# the first one writes, as it would check any other sink.
AGENT_IS_TOLD="OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_PROTOCOL REDIS_HOST REDIS_PORT"
WATCHER_IS_TOLD="$AGENT_IS_TOLD KAFKA_BOOTSTRAP_SERVERS CONNECT_URL CONNECT_MYSQL_USER CONNECT_MYSQL_PASSWORD"

# stack_up PART...: the pair, those parts, the sample, the agent, traffic.
stack_up() {
    mkdir -p "$STACK"
    exec 9>>"$STACK/lock"
    flock -n 9 || die "another command is at work in $STACK"
    if running "$STACK/run/agent.pid" >/dev/null; then die "the stack in $STACK is up already; \`compose/stack status\` tells, \`compose/stack down\` stops it"; fi
    # However this ends before everything runs: nothing is left behind.
    trap 'stack_down' EXIT
    end_on_signals
    # Traffic of an earlier demo whose agent has ended.
    end "$STACK/run/traffic.pid"
    install_stack
    [ $# -eq 0 ] || install_services "$@"
    build_agent
    mkdir -p "$STACK/run"
    printf '%s\n' "$@" >"$STACK/run/parts"
    step "starting MySQL and PostgreSQL"
    servers_start "$STACK/servers" no 13306 15432
    load_sample
    services_start "$STACK/services" yes "$@"
    start_agent
    case " $* " in *' connect '*) start_watcher ;; esac
    step "starting traffic"
    PLUMBLINE_STACK_DIR=$STACK spawn "$STACK/run/traffic.pid" "$STACK/logs/traffic.log" "$COMPOSE/stack" traffic
    exec 9>&-
}

# Stops what `up` and `demo` started here, in the order in which they hang together. The data stay.
stack_down() {
    local name
    for name in traffic watcher agent; do
        if running "$STACK/run/$name.pid" >/dev/null; then step "stopping $name"; fi
        end "$STACK/run/$name.pid" TERM 30
    done
    services_stop "$STACK/services"
    if running "$STACK/servers/mysql.pid" >/dev/null || running "$STACK/servers/pg.pid" >/dev/null; then step "stopping MySQL and PostgreSQL"; fi
    servers_stop "$STACK/servers"
}

# Builds the agent, unless PLUMBLINE_STACK_AGENT names one that is built.
build_agent() {
    AGENT=${PLUMBLINE_STACK_AGENT-}
    if [ -n "$AGENT" ]; then
        [ -x "$AGENT" ] || die "PLUMBLINE_STACK_AGENT is \`$AGENT\`, and that is no program"
        AGENT=$(cd "$(dirname "$AGENT")" && pwd)/$(basename "$AGENT")
        return 0
    fi
    find_cargo
    step "building the agent (the first time takes some minutes)"
    (cd "$REPO" && cargo build --release --locked -p plumbline 9>&-) || die "the agent could not be built"
    AGENT=$(target_folder)/release/plumbline
}

find_cargo() {
    if command -v cargo >/dev/null; then return 0; fi
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
        return 0
    fi
    die "cargo is missing: install Rust $RUST_VERSION or later with rustup (https://rustup.rs), or use compose.yaml with Docker"
}

target_folder() {
    (cd "$REPO" && cargo metadata --format-version 1 --no-deps --offline 2>/dev/null) | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

load_sample() {
    local dir=$STACK/servers
    if [ ! -e "$STACK/sample.ready" ]; then
        step "loading the sample (300,000 rows)"
        mysql_root "$dir" -e 'DROP DATABASE IF EXISTS shop; CREATE DATABASE shop'
        mysql_root "$dir" shop <"$COMPOSE/sample/schema.sql"
        mysql_root "$dir" shop <"$COMPOSE/sample/data.sql"
        : >"$STACK/sample.ready"
    fi
}

start_agent() {
    choose_port port 8000
    agent_settings "$AGENT_IS_TOLD" PLUMBLINE_APPLY=true "PLUMBLINE_DATA_DIR=$STACK/agent" "PLUMBLINE_LISTEN=127.0.0.1:$PORT"
    run_agent agent
}

start_watcher() {
    choose_port watcher.port 8001
    # shellcheck source=/dev/null
    . "$STACK/servers/env"
    CONNECT_MYSQL_USER=$DEBEZIUM_USER CONNECT_MYSQL_PASSWORD=$DEBEZIUM_PASSWORD \
        agent_settings "$WATCHER_IS_TOLD" PLUMBLINE_PIPELINE=kafka "PLUMBLINE_DATA_DIR=$STACK/watcher" "PLUMBLINE_LISTEN=127.0.0.1:$PORT"
    run_agent watcher
}

# choose_port FILE WISH: sets PORT and keeps it in run/FILE; the port of the last time comes first.
choose_port() {
    # shellcheck disable=SC2046
    PORT=$(free_port $(cat "$STACK/run/$1" 2>/dev/null) "$2")
    printf '%s\n' "$PORT" >"$STACK/run/$1.new"
    mv "$STACK/run/$1.new" "$STACK/run/$1"
    tell_prometheus
}

# run_agent NAME: an agent with AGENT_SETTINGS on PORT.
run_agent() {
    step "starting the $1 on 127.0.0.1:$PORT"
    spawn "$STACK/run/$1.pid" "$STACK/logs/$1.log" \
        env -u KAFKA_BOOTSTRAP_SERVERS -u CONNECT_URL -u REDIS_HOST -u REDIS_PORT -u REDIS_URL -u REDIS_USERNAME -u REDIS_PASSWORD \
        "${AGENT_SETTINGS[@]}" "$AGENT" run
    wait_until 60 "$STACK/run/$1.pid" agent_ready "$PORT" || {
        tail -n 20 "$STACK/logs/$1.log" >&2
        die "the $1 did not become ready (its log: $STACK/logs/$1.log)"
    }
}

# agent_settings TOLD NAME=VALUE...: sets AGENT_SETTINGS, an agent's environment: these, how to reach the pair, and the variables in TOLD.
agent_settings() {
    local name told=$1
    shift
    AGENT_SETTINGS=("$@")
    # shellcheck source=/dev/null
    . "$STACK/servers/env"
    read_services_env "$STACK/services"
    for name in MYSQL_HOST MYSQL_PORT MYSQL_USER MYSQL_PASSWORD MYSQL_DATABASE \
        POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DATABASE POSTGRES_SCHEMA $told; do
        [ -z "${!name-}" ] || AGENT_SETTINGS+=("$name=${!name}")
    done
}

# Whom Prometheus scrapes, where it is one of the parts.
tell_prometheus() {
    local targets=$STACK/services/prometheus/targets file
    [ -d "$targets" ] || return 0
    for file in "$STACK/run/port" "$STACK/run/watcher.port"; do
        [ ! -e "$file" ] || printf '"127.0.0.1:%s"\n' "$(cat "$file")"
    done | paste -sd, | sed 's/.*/[{"targets": [&]}]/' >"$targets/agent.new"
    mv "$targets/agent.new" "$targets/agent.json"
}

agent_ready() { [ "$(http_status "127.0.0.1:$1" /readyz)" = 200 ]; }

show_addresses() {
    # shellcheck source=/dev/null
    . "$STACK/servers/env"
    local url
    url=http://127.0.0.1:$(cat "$STACK/run/port")
    cat <<EOF

  live page     $url/
  API           $url/docs
  metrics       $url/metrics
  MySQL         MYSQL_PWD=app $MYSQL_CLIENT -uapp -h127.0.0.1 -P$MYSQL_PORT shop
  PostgreSQL    PGPASSWORD=plumbline $POSTGRES_CLIENT -h 127.0.0.1 -p $POSTGRES_PORT -U plumbline plumbline
EOF
    if running "$STACK/run/watcher.pid" >/dev/null; then address 'by Kafka' "http://127.0.0.1:$(cat "$STACK/run/watcher.port")/"; fi
    show_services
    address logs "compose/stack logs [NAME]"
}

show_services() {
    read_services_env "$STACK/services"
    address Kafka "${KAFKA_BOOTSTRAP_SERVERS-}"
    address Connect "${CONNECT_URL:+$CONNECT_URL/connectors}"
    address Redis "${REDIS_PORT:+$REDIS_HOST:$REDIS_PORT}"
    address Prometheus "${PROMETHEUS_URL:+$PROMETHEUS_URL/graph}"
    if running "$STACK/services/otlp.pid" >/dev/null; then address traces "to $OTEL_EXPORTER_OTLP_ENDPOINT; what arrives: compose/stack logs otlp"; fi
}

address() { [ -z "$2" ] || printf '  %-13s %s\n' "$1" "$2"; }

# Stays until Ctrl-C, or until the agent ends by itself; the trap of `stack_up` then stops everything.
stay() {
    printf '  to stop       Ctrl-C\n\n'
    while running "$STACK/run/agent.pid" >/dev/null; do
        sleep 1 || true
    done
    tail -n 20 "$STACK/logs/agent.log" >&2
    die "the agent has ended"
}

cmd_demo() {
    local detach=no
    while [ $# -gt 0 ]; do
        case $1 in
            --detach | -d) detach=yes; shift ;;
            --data-dir)
                [ -n "${2-}" ] || die "\`--data-dir\` needs a folder"
                STACK=$(mkdir -p "$2" && cd "$2" && pwd)
                shift 2
                ;;
            *) die "\`$1\` is not known to demo; known: --detach, --data-dir DIR" ;;
        esac
    done
    stack_up
    show_addresses
    [ "$detach" = yes ] || stay
    trap - EXIT
    printf '  to stop       %scompose/stack down\n\n' "$([ "$STACK" = "$REPO/.stack" ] || printf 'PLUMBLINE_STACK_DIR=%q ' "$STACK")"
}

cmd_up() {
    [ $# -eq 0 ] || die "\`up\` takes no arguments"
    local parts=(redis kafka connect jdbc prometheus)
    # Only the receiver of traces is no matter of the stack's life: without it the agent sends none.
    if (install_services otlp); then parts+=(otlp); else say "there will be no receiver of traces"; fi
    stack_up "${parts[@]}"
    show_addresses
    trap - EXIT
    printf '  to stop       compose/stack down\n\n'
}

cmd_down() {
    mkdir -p "$STACK"
    exec 9>>"$STACK/lock"
    flock -w 60 9 || die "another command is at work in $STACK"
    stack_down
    case ${1-} in
        '') ;;
        --delete)
            services_remove "$STACK/services"
            servers_remove "$STACK/servers"
            rm -rf "$STACK"/{agent,watcher,run,logs,sample.ready,lock}
            rmdir "$STACK" 2>/dev/null || true
            ;;
        *) die "\`$1\` is not known to down; known: --delete" ;;
    esac
}

# Exits with 0 when all runs that this stack is made of, else with 3. Traffic may come and go.
cmd_status() {
    local all=0 name file port at pid
    while read -r name file port at; do
        if pid=$(running "$file"); then
            printf '%-10s running   pid %-7s %6s MB   %s\n' "$name" "$pid" "$(memory "$pid")" "$at$(cat "$port" 2>/dev/null || true)"
        elif belongs "$name"; then
            printf '%-10s stopped\n' "$name"
            [ "$name" = traffic ] || all=3
        fi
    done <<EOF
mysql $STACK/servers/mysql.pid $STACK/servers/mysql.port 127.0.0.1:
postgres $STACK/servers/pg.pid $STACK/servers/pg.port 127.0.0.1:
redis $STACK/services/redis.pid $STACK/services/redis.port 127.0.0.1:
otlp $STACK/services/otlp.pid $STACK/services/otlp.port 127.0.0.1:
kafka $STACK/services/kafka.pid $STACK/services/kafka.port 127.0.0.1:
connect $STACK/services/connect.pid $STACK/services/connect.port http://127.0.0.1:
prometheus $STACK/services/prometheus.pid $STACK/services/prometheus.port http://127.0.0.1:
agent $STACK/run/agent.pid $STACK/run/port http://127.0.0.1:
watcher $STACK/run/watcher.pid $STACK/run/watcher.port http://127.0.0.1:
traffic $STACK/run/traffic.pid -
EOF
    printf 'data in %s, software in %s\n' "$STACK" "$CACHE"
    return $all
}

# Whether a part belongs to this stack: all of them to one of `up`, without services to one of `demo`.
belongs() {
    case $1 in
        mysql | postgres | agent | traffic) ;;
        watcher) grep -qsx connect "$STACK/run/parts" ;;
        *) grep -qsx "$1" "$STACK/run/parts" ;;
    esac
}

memory() { awk '/^VmRSS/ { printf "%d", $2 / 1024 }' "/proc/$1/status" 2>/dev/null || true; }

cmd_logs() {
    local name file
    for name in ${1:-mysql postgres "${SERVICES[@]}" agent watcher traffic}; do
        case $name in
            mysql) file=$STACK/servers/mysql.log ;;
            postgres) file=$STACK/servers/pg.log ;;
            agent | watcher | traffic) file=$STACK/logs/$name.log ;;
            redis | otlp | kafka | connect | prometheus) file=$STACK/services/$name.log ;;
            *) die "there is no log \`$name\`; known: mysql, postgres, redis, otlp, kafka, connect, prometheus, agent, watcher, traffic" ;;
        esac
        [ -f "$file" ] || continue
        if [ $# -gt 0 ]; then cat "$file"; else printf -- '---- %s\n' "$file"; tail -n 20 "$file"; fi
    done
}
