# The parts beside the pair, as plain processes on free loopback ports, with everything in one folder. Sourced by compose/stack.
# shellcheck shell=bash
#
# DIR/services.env   how to reach those that run, to be sourced
# DIR/NAME           data and settings of one part; NAME.pid, NAME.port and NAME.log lie beside it

# In the order in which they start; they stop in the opposite one.
SERVICES=(redis otlp kafka connect prometheus)

# services_start DIR WISHES PART...: with WISHES `yes`, well-known ports are tried first. What runs is left running.
# `connect` brings `kafka`, `jdbc` is `connect` with the plugin of Debezium's sink, and `secure` is `kafka` with a second
# listener that asks for TLS and a password (KAFKA_SECURE_*); a Connect that starts with it has one too (CONNECT_SECURE_URL).
services_start() {
    local dir wishes=$2 name parts
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    shift 2
    parts=" $* "
    case $parts in *' jdbc '*) parts+="connect " ;; esac
    case $parts in *' connect '* | *' secure '*) parts+="kafka " ;; esac
    case $parts in *' jdbc '*) connect_wants_jdbc "$dir" ;; esac
    case $parts in *' secure '*) kafka_wants_tls "$dir" ;; esac
    for name in "${SERVICES[@]}"; do
        case $parts in *" $name "*) service_start "$dir" "$name" "$wishes" ;; esac
    done
    write_services_env "$dir"
}

# service_start DIR NAME WISHES: up to three times, should somebody else take the port first.
service_start() {
    local dir=$1 name=$2 wish='' port
    if running "$dir/$name.pid" >/dev/null && "${name}_answers" "$dir"; then return 0; fi
    service_end "$dir" "$name"
    step "starting $name"
    if [ "$3" = yes ]; then wish=$(wished_port "$name"); fi
    mkdir -p -m 700 "$dir/$name"
    for _ in 1 2 3; do
        # The port that it had before comes first.
        # shellcheck disable=SC2046,SC2086 # no wish is no argument
        port=$(free_port $(cat "$dir/$name.port" 2>/dev/null) $wish)
        printf '%s\n' "$port" >"$dir/$name.port"
        "${name}_spawn" "$dir" "$port"
        if wait_until 180 "$dir/$name.pid" "${name}_answers" "$dir"; then return 0; fi
        service_end "$dir" "$name"
    done
    tail -n 20 "$dir/$name.log" >&2
    die "$name did not start (its log: $dir/$name.log)"
}

service_end() { end "$1/$2.pid" TERM 30; }

service_port() { cat "$1/$2.port"; }

wished_port() {
    case $1 in
        redis) echo 16379 ;;
        otlp) echo 14317 ;;
        kafka) echo 19092 ;;
        connect) echo 18083 ;;
        prometheus) echo 19090 ;;
    esac
}

# Stops what `services_start` started there; the data stay.
services_stop() {
    local dir i
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    for ((i = ${#SERVICES[@]} - 1; i >= 0; i--)); do
        if running "$dir/${SERVICES[i]}.pid" >/dev/null; then step "stopping ${SERVICES[i]}"; fi
        service_end "$dir" "${SERVICES[i]}"
    done
    rm -f "$dir/services.env"
}

# Stops them and removes their data.
services_remove() {
    local dir name
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    services_stop "$dir"
    for name in "${SERVICES[@]}"; do rm -rf "$dir/$name" "$dir/$name".{log,port}; done
    rmdir "$dir" 2>/dev/null || true
}

# ---- Each part: NAME_spawn DIR PORT, and NAME_answers DIR

redis_spawn() {
    spawn "$1/redis.pid" "$1/redis.log" "$REDIS_SERVER" --bind 127.0.0.1 --port "$2" --dir "$1/redis" --daemonize no \
        --save '' --appendonly yes --appendfsync everysec --maxmemory-policy noeviction
}

redis_answers() { [ "$(tcp_line "$(service_port "$1" redis)" PING)" = +PONG ]; }

# Says what it received in its log, a line for each request; it keeps nothing.
otlp_spawn() {
    local http
    http=$(free_port)
    printf '%s\n' "$http" >"$1/otlp/http.port"
    spawn "$1/otlp.pid" "$1/otlp.log" env NO_COLOR=1 "$ROTEL" start --otlp-grpc-endpoint "127.0.0.1:$2" --otlp-http-endpoint "127.0.0.1:$http" \
        --exporter blackhole --debug-log traces --debug-log metrics --debug-log logs
}

otlp_answers() { tcp_open "$(service_port "$1" otlp)" && tcp_open "$(cat "$1/otlp/http.port")"; }

# Broker and controller in one process. The voter is named in the settings, not in the data, so that its port may change.
kafka_spawn() {
    local dir=$1 port=$2 controller
    until controller=$(free_port) && [ "$controller" != "$port" ]; do :; done
    cat >"$dir/kafka/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
log.dirs=$dir/kafka/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=5
group.initial.rebalance.delay.ms=0
EOF
    if [ -e "$dir/kafka/secure" ]; then kafka_secure_listener "$dir" "$port"; fi
    if [ ! -e "$dir/kafka/ready" ]; then
        rm -rf "$dir/kafka/data"
        "$JAVA" "${JAVA_OPTIONS[@]}" -cp "$KAFKA_JARS/*" kafka.tools.StorageTool format -t "$(cluster_id)" -c "$dir/kafka/server.properties" \
            >>"$dir/kafka.log" 2>&1 </dev/null 9>&- || { tail -n 20 "$dir/kafka.log" >&2; die "Kafka could not make its data folder"; }
        : >"$dir/kafka/ready"
    fi
    wc -c <"$dir/kafka.log" >"$dir/kafka/log.start"
    spawn "$dir/kafka.pid" "$dir/kafka.log" "$JAVA" -Xmx512m "${JAVA_OPTIONS[@]}" -cp "$KAFKA_JARS/*" kafka.Kafka "$dir/kafka/server.properties"
}

# A certificate of its own for 127.0.0.1, and one user by PLAIN. Passwords of a test's broker: they guard nothing.
kafka_secure_listener() {
    local dir=$1 plain=$2 port keytool
    until port=$(free_port) && [ "$port" != "$plain" ]; do :; done
    printf '%s\n' "$port" >"$dir/kafka/secure.port"
    keytool=$(dirname "$(readlink -f "$JAVA")")/keytool
    if [ ! -e "$dir/kafka/secure.p12" ]; then
        "$keytool" -genkeypair -alias kafka -keyalg EC -validity 3650 -dname CN=127.0.0.1 -ext san=ip:127.0.0.1,dns:localhost \
            -storetype PKCS12 -keystore "$dir/kafka/secure.p12" -storepass plumbline >>"$dir/kafka.log" 2>&1 </dev/null
        "$keytool" -exportcert -rfc -alias kafka -keystore "$dir/kafka/secure.p12" -storepass plumbline >"$dir/kafka/secure.pem" 2>>"$dir/kafka.log" </dev/null
    fi
    sed -i "s|^listeners=.*|&,SECURE://127.0.0.1:$port|; s|^advertised.listeners=.*|&,SECURE://127.0.0.1:$port|" "$dir/kafka/server.properties"
    cat >>"$dir/kafka/server.properties" <<EOF
listener.name.secure.ssl.keystore.location=$dir/kafka/secure.p12
listener.name.secure.ssl.keystore.password=plumbline
listener.name.secure.ssl.keystore.type=PKCS12
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_agent="plumbline";
EOF
}

# A broker that runs without that listener is ended here, and started again with it.
kafka_wants_tls() {
    [ ! -e "$1/kafka/secure" ] || return 0
    mkdir -p -m 700 "$1/kafka"
    : >"$1/kafka/secure"
    service_end "$1" kafka
}

# Its port is open a little before topics can be made; this is the line that it writes when all of it runs.
kafka_answers() {
    grep -q 'Kafka Server started' < <(tail -c "+$(($(cat "$1/kafka/log.start") + 1))" "$1/kafka.log") && tcp_open "$(service_port "$1" kafka)"
}

# A cluster id as Kafka wants it: sixteen bytes, as 22 letters of base64 without `+` and `/`.
cluster_id() { head -c 16 /dev/urandom | base64 | tr '+/' 'AA' | tr -d '=\n'; }

connect_spawn() {
    local dir=$1 port=$2 secure
    # Values without their schema, as the agent asks for them too; a connector that needs it (Debezium's sink) says so itself.
    cat >"$dir/connect/connect.properties" <<EOF
bootstrap.servers=127.0.0.1:$(service_port "$dir" kafka)
group.id=plumbline-connect
listeners=http://127.0.0.1:$port
plugin.path=$(connect_plugins "$dir")
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false
config.storage.topic=connect-configs
config.storage.replication.factor=1
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect-status
status.storage.replication.factor=1
status.storage.partitions=1
offset.flush.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths=$dir/connect/secrets
EOF
    mkdir -p -m 700 "$dir/connect/secrets"
    if [ -e "$dir/kafka/secure.p12" ]; then
        until secure=$(free_port) && [ "$secure" != "$port" ]; do :; done
        printf '%s\n' "$secure" >"$dir/connect/secure.port"
        sed -i "s|^listeners=.*|&,https://127.0.0.1:$secure|" "$dir/connect/connect.properties"
        cat >>"$dir/connect/connect.properties" <<EOF
rest.advertised.listener=http
ssl.keystore.location=$dir/kafka/secure.p12
ssl.keystore.password=plumbline
ssl.keystore.type=PKCS12
EOF
    fi
    spawn "$dir/connect.pid" "$dir/connect.log" "$JAVA" -Xmx768m "${JAVA_OPTIONS[@]}" -cp "$KAFKA_JARS/*" \
        org.apache.kafka.connect.cli.ConnectDistributed "$dir/connect/connect.properties"
}

connect_answers() { [ "$(http_status "127.0.0.1:$(service_port "$1" connect)" /health)" = 200 ]; }

# What Connect is told as `plugin.path`.
connect_plugins() { if [ -e "$1/connect/jdbc" ]; then printf '%s,%s\n' "$DEBEZIUM_MYSQL" "$DEBEZIUM_JDBC"; else printf '%s\n' "$DEBEZIUM_MYSQL"; fi; }

# A worker that runs without the sink is ended here, and started again with it.
connect_wants_jdbc() {
    [ ! -e "$1/connect/jdbc" ] || return 0
    mkdir -p -m 700 "$1/connect"
    : >"$1/connect/jdbc"
    service_end "$1" connect
}

# A heap that is too small ends the process, where it is seen, rather than a thread of it.
JAVA_OPTIONS=(-XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true
    -Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX")

# Scrapes the agents that DIR/prometheus/targets/*.json name; the stack writes one there.
prometheus_spawn() {
    local dir=$1
    mkdir -p "$dir/prometheus/targets"
    cat >"$dir/prometheus/prometheus.yml" <<EOF
global:
  scrape_interval: 5s
  evaluation_interval: 5s
scrape_configs:
  - job_name: plumbline
    file_sd_configs:
      - files: ["$dir/prometheus/targets/*.json"]
        refresh_interval: 5s
EOF
    spawn "$dir/prometheus.pid" "$dir/prometheus.log" "$PROMETHEUS" --config.file="$dir/prometheus/prometheus.yml" \
        --storage.tsdb.path="$dir/prometheus/data" --storage.tsdb.retention.time=7d --web.listen-address="127.0.0.1:$2" \
        --enable-feature=exemplar-storage
}

prometheus_answers() { [ "$(http_status "127.0.0.1:$(service_port "$1" prometheus)" /-/ready)" = 200 ]; }

# ---- How to reach them

write_services_env() {
    local dir=$1 name at
    for name in "${SERVICES[@]}"; do
        running "$dir/$name.pid" >/dev/null || continue
        at=127.0.0.1:$(service_port "$dir" "$name")
        case $name in
            redis) printf '%s=%q\n' REDIS_HOST 127.0.0.1 REDIS_PORT "${at##*:}" ;;
            otlp) printf '%s=%q\n' OTEL_EXPORTER_OTLP_ENDPOINT "http://$at" OTEL_EXPORTER_OTLP_PROTOCOL grpc ;;
            kafka)
                printf '%s=%q\n' KAFKA_BOOTSTRAP_SERVERS "$at"
                if [ -e "$dir/kafka/secure" ]; then
                    printf '%s=%q\n' KAFKA_SECURE_SERVERS "127.0.0.1:$(cat "$dir/kafka/secure.port")" KAFKA_SECURE_CA "$dir/kafka/secure.pem" \
                        KAFKA_SECURE_USER agent KAFKA_SECURE_PASSWORD plumbline
                fi
                ;;
            connect)
                printf '%s=%q\n' CONNECT_URL "http://$at" CONNECT_SECRETS "$dir/connect/secrets"
                if [ -e "$dir/connect/secure.port" ]; then printf '%s=%q\n' CONNECT_SECURE_URL "https://127.0.0.1:$(cat "$dir/connect/secure.port")"; fi
                ;;
            prometheus) printf '%s=%q\n' PROMETHEUS_URL "http://$at" ;;
        esac
    done >"$dir/services.env.$$"
    mv "$dir/services.env.$$" "$dir/services.env"
}

# Sets what is written there; what it does not name is not taken from the caller's environment either.
read_services_env() {
    unset REDIS_HOST REDIS_PORT KAFKA_BOOTSTRAP_SERVERS KAFKA_SECURE_SERVERS KAFKA_SECURE_CA KAFKA_SECURE_USER KAFKA_SECURE_PASSWORD CONNECT_URL CONNECT_SECURE_URL CONNECT_SECRETS PROMETHEUS_URL
    # shellcheck source=/dev/null
    . "$1/services.env"
}
