# What the Rust tests are told, and running them. Sourced by compose/stack.
# shellcheck shell=bash

# Prints the variables by which the tests find the programs they start.
print_env() {
    printf '%s=%q\n' \
        PLUMBLINE_TEST_MYSQLD "$CACHE/bin/mysqld" \
        PLUMBLINE_TEST_MYSQL "$CACHE/bin/mysql" \
        PLUMBLINE_TEST_MYSQL_ROOT "$MYSQL_ROOT" \
        PLUMBLINE_TEST_PG_BIN "$POSTGRES_BIN" \
        PLUMBLINE_TEST_PG_USER "$(postgres_user)" \
        PLUMBLINE_TEST_REDIS_SERVER "$REDIS_SERVER" \
        PLUMBLINE_TEST_REDIS_CLI "$(command -v redis-cli || true)" \
        PLUMBLINE_TEST_JAVA "$JAVA" \
        PLUMBLINE_TEST_KAFKA_CLASSPATH "$KAFKA_JARS/*" \
        PLUMBLINE_TEST_CONNECT_PLUGIN_PATH "$DEBEZIUM_MYSQL,$DEBEZIUM_JDBC" \
        PLUMBLINE_TEST_PROMETHEUS "$PROMETHEUS" \
        PLUMBLINE_TEST_PROMTOOL "$CACHE/prometheus/usr/bin/promtool" \
        PLUMBLINE_TEST_CHROMIUM "$(command -v chromium || true)" \
        PLUMBLINE_TEST_CHROMEDRIVER "$(command -v chromedriver || true)"
}

cmd_test() {
    install_stack --for-tests
    find_cargo
    set -a
    eval "$(print_env)"
    set +a
    cd "$REPO"
    exec cargo test --workspace --locked "$@"
}
