# Installs the parts beside the pair: Redis, Kafka with Connect, Debezium's plugins, Prometheus, a receiver of traces.
# What the machine has is used; of Debian's packages only those that bring no service. Sourced by compose/stack.
# shellcheck shell=bash

JAVA=
REDIS_SERVER=
KAFKA_JARS=$CACHE/kafka-$KAFKA_VERSION
DEBEZIUM_MYSQL=$CACHE/debezium-connector-mysql-$DEBEZIUM_MYSQL_VERSION
DEBEZIUM_JDBC=$CACHE/debezium-connector-jdbc-$DEBEZIUM_JDBC_VERSION
PROMETHEUS=$CACHE/prometheus/usr/bin/prometheus
ROTEL=$CACHE/rotel-$ROTEL_VERSION/rotel-agent

# install_services PART...: may be called as often as one likes; does nothing where nothing is missing.
install_services() {
    alone install_parts "$@"
    find_redis || true
    find_java || true
}

install_parts() {
    local part packages=()
    for part in "$@"; do
        case $part in
            redis) find_redis || packages+=(redis-tools) ;;
            kafka | connect | jdbc)
                find_java || packages+=("openjdk-$JAVA_MAJOR-jre-headless")
                fetched "$part" || command -v mvn >/dev/null || packages+=(maven)
                ;;
            otlp) [ -x "$ROTEL" ] || system_python -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv) ;;
        esac
    done
    apt_install "${packages[@]}"
    for part in "$@"; do
        case $part in
            redis) find_redis || die "Redis was installed, but \`redis-server\` was not found" ;;
            kafka | connect | jdbc)
                find_java || die "there is no Java $JAVA_MAJOR or later"
                fetched "$part" || fetch "$part"
                ;;
            prometheus) install_prometheus ;;
            otlp) install_rotel ;;
        esac
    done
}

# Sets REDIS_SERVER. Debian's package of that name is a link into redis-tools, and a service; the cache has a link of its own instead.
find_redis() {
    local program
    if REDIS_SERVER=$(command -v redis-server); then return 0; fi
    program=$(command -v redis-check-rdb) || return 1
    REDIS_SERVER=$CACHE/bin/redis-server
    [ "$(readlink "$REDIS_SERVER")" = "$program" ] || { ln -sfn "$program" "$REDIS_SERVER.$$" && mv -T "$REDIS_SERVER.$$" "$REDIS_SERVER"; }
}

# Sets JAVA: the first one that is new enough.
find_java() {
    local java version
    [ -z "$JAVA" ] || return 0
    for java in "${JAVA_HOME:-/nowhere}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        [ -x "$java" ] || continue
        version=$("$java" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p') || continue
        if [ "${version:-0}" -ge "$JAVA_MAJOR" ]; then
            JAVA=$java
            return 0
        fi
    done
    return 1
}

# Whether the cache has what a part needs.
fetched() {
    [ -d "$KAFKA_JARS" ] || return 1
    [ "$1" = kafka ] || [ -d "$DEBEZIUM_MYSQL" ] || return 1
    [ "$1" != jdbc ] || [ -d "$DEBEZIUM_JDBC" ] || return 1
}

fetch() {
    [ -d "$KAFKA_JARS" ] || fetch_kafka
    [ "$1" = kafka ] || fetch_plugin "$DEBEZIUM_MYSQL" "io.debezium:debezium-connector-mysql:$DEBEZIUM_MYSQL_VERSION"
    [ "$1" != jdbc ] || fetch_plugin "$DEBEZIUM_JDBC" "io.debezium:debezium-connector-jdbc:$DEBEZIUM_JDBC_VERSION"
}

# The broker, the controller and Connect, as one class path.
fetch_kafka() {
    local folder=$KAFKA_JARS.unpacking
    step "fetching Kafka $KAFKA_VERSION into the cache"
    rm -rf "$folder"
    mkdir -p "$folder"
    cat >"$folder/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>plumbline</groupId><artifactId>stack</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$SLF4J_VERSION</version></dependency>
  </dependencies>
</project>
EOF
    maven "$folder" copy-dependencies -DoutputDirectory="$folder/jars"
    mv "$folder/jars" "$KAFKA_JARS"
    rm -rf "$folder"
}

# fetch_plugin FOLDER ARTIFACT: a folder for Connect's `plugin.path`.
fetch_plugin() {
    local folder=$1 unpacked=$1.unpacking
    [ ! -d "$folder" ] || return 0
    step "fetching $(basename "$folder") into the cache"
    rm -rf "$unpacked"
    mkdir -p "$unpacked/plugin"
    maven "$unpacked" unpack "-Dartifact=$2:zip:plugin" -DoutputDirectory="$unpacked/plugin"
    mv "$unpacked/plugin" "$folder"
    rm -rf "$unpacked"
}

# maven FOLDER GOAL OPTION...: a goal of the pinned dependency plugin, run in a folder; once more when it fails.
maven() {
    local folder=$1 goal=$2
    shift 2
    for _ in 1 2; do
        if (cd "$folder" && mvn -B -q -Dmaven.repo.local="$CACHE/maven" \
            "org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_DEPENDENCY_PLUGIN_VERSION:$goal" "$@") >"$CACHE/maven.log" 2>&1 </dev/null 8>&-; then
            return 0
        fi
    done
    tail -n 20 "$CACHE/maven.log" >&2
    die "maven could not fetch $(basename "$folder" .unpacking)"
}

# Prometheus and promtool are plain programs; the package's service is never installed.
install_prometheus() {
    [ ! -x "$CACHE/prometheus/usr/bin/promtool" ] || return 0
    step "unpacking Prometheus into the cache"
    local folder=$CACHE/prometheus.unpacking
    rm -rf "$folder"
    mkdir -p "$folder"
    (
        cd "$folder"
        apt-get -q -o APT::Sandbox::User=root download prometheus >"$CACHE/prometheus.log" 2>&1 </dev/null 8>&- ||
            { as_root apt-get -q -o DPkg::Lock::Timeout=300 update && apt-get -q download prometheus; } >>"$CACHE/prometheus.log" 2>&1 </dev/null 8>&- ||
            { tail -n 20 "$CACHE/prometheus.log" >&2; die "apt-get could not download prometheus"; }
        dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb
    )
    rm -rf "$CACHE/prometheus"
    mv "$folder" "$CACHE/prometheus"
}

# The Python that came with Debian, whose libraries are Debian's too; else any.
system_python() { if [ -x /usr/bin/python3 ]; then /usr/bin/python3 "$@"; else python3 "$@"; fi; }

# Of the wheel only the program in it is wanted. It is linked to the library of the Python that it was fetched with.
install_rotel() {
    local folder=$CACHE/rotel.unpacking log=$CACHE/rotel.log program
    [ ! -x "$ROTEL" ] || return 0
    step "fetching rotel $ROTEL_VERSION into the cache"
    rm -rf "$folder"
    { system_python -m venv "$folder" && "$folder/bin/pip" install --only-binary=:all: --no-deps "rotel==$ROTEL_VERSION"; } >"$log" 2>&1 </dev/null 8>&- ||
        { tail -n 20 "$log" >&2; rm -rf "$folder"; die "pip could not install rotel $ROTEL_VERSION"; }
    program=$(find "$folder" -name rotel-agent -type f)
    [ -x "$program" ] || die "rotel $ROTEL_VERSION was fetched, and there is no \`rotel-agent\` in it"
    if ! "$program" --version >/dev/null 2>&1; then
        apt_install "libpython$(system_python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        "$program" --version >"$log" 2>&1 || { cat "$log" >&2; die "rotel $ROTEL_VERSION does not run here"; }
    fi
    mkdir -p "$(dirname "$ROTEL")"
    mv "$program" "$ROTEL"
    rm -rf "$folder"
}
