# A pair of bare servers in a folder of its own: MySQL and PostgreSQL on free loopback ports. Sourced by compose/stack.
# shellcheck shell=bash
#
# DIR/env              how to connect, to be sourced
# DIR/mysql, DIR/pg    their data and settings; *.pid and *.log lie beside them

# servers_start DIR DEV [MYSQL_PORT PG_PORT]: DEV is `yes` or `no`, the ports are wishes. A pair that runs is left running.
servers_start() {
    local dir
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    if [ ! -e "$dir/mysql.ready" ]; then mysql_init "$dir"; fi
    if [ ! -e "$dir/pg.ready" ]; then postgres_init "$dir"; fi
    mysql_start "$dir" "${3-}"
    postgres_start "$dir" "${4-}"
    if [ ! -e "$dir/users.ready" ]; then
        make_users "$dir"
        : >"$dir/users.ready"
    fi
    if [ ! -e "$dir/debezium.ready" ]; then
        make_debezium_user "$dir"
        : >"$dir/debezium.ready"
    fi
    if [ "$2" = yes ] && [ ! -e "$dir/dev.ready" ]; then
        make_dev_users "$dir"
        : >"$dir/dev.ready"
    fi
    write_env "$dir"
}

# Stops what `servers_start` started there; the data stay.
servers_stop() {
    local dir
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    end "$dir/mysql.pid" TERM 60
    end "$dir/pg.pid" INT 30
    rm -f "$dir/env"
}

# Stops the pair and removes its data.
servers_remove() {
    local dir
    [ -d "$1" ] || return 0
    dir=$(cd "$1" && pwd)
    servers_stop "$dir"
    local pg
    pg=$(postgres_home "$dir")
    case $pg in "$dir"/*) ;; *) rm -rf "$pg" ;; esac
    local sockets
    sockets=$(mysql_sockets "$dir")
    case $sockets in "$dir"/*) ;; *) rm -rf "$sockets" ;; esac
    rm -rf "$dir"/{mysql,pg} "$dir"/{mysql,pg}.{log,port} "$dir"/{mysql,pg,users,debezium,dev}.ready "$dir"/{pg-superuser,env,init.log}
    rmdir "$dir" 2>/dev/null || true
}

# ---- MySQL

# Where the socket lies: its path may not be longer than about a hundred characters.
mysql_sockets() {
    if [ ${#1} -lt 80 ]; then printf '%s\n' "$1/mysql"; else printf '/tmp/plumbline-%s\n' "$(printf '%s' "$1" | cksum | tr ' ' -)"; fi
}

mysql_init() {
    local dir=$1 log=$1/mysql.log
    rm -rf "$dir/mysql"
    mkdir -p -m 700 "$dir/mysql"
    "$CACHE/bin/mysqld" --no-defaults --user="$(id -un)" --datadir="$dir/mysql/data" --initialize-insecure </dev/null >"$log" 2>&1 9>&- ||
        { tail -n 20 "$log" >&2; die "MySQL could not make its data folder"; }
    : >"$dir/mysql.ready"
}

mysql_start() {
    local dir=$1 tries port sockets
    if running "$dir/mysql.pid" >/dev/null && mysql_root "$dir" -e 'DO 1' 2>/dev/null; then return 0; fi
    end "$dir/mysql.pid" TERM 60
    sockets=$(mysql_sockets "$dir")
    mkdir -p -m 700 "$sockets"
    for tries in 1 2 3; do
        # The port that it had before comes first, so that a restarted pair stays where it was.
        # shellcheck disable=SC2046,SC2086 # no wish is no argument
        port=$(free_port $(cat "$dir/mysql.port" 2>/dev/null) ${2-})
        cat >"$dir/mysql/my.cnf" <<EOF
[mysqld]
user=$(id -un)
datadir=$dir/mysql/data
socket=$sockets/mysql.sock
pid-file=$dir/mysql/mysqld.pid
bind-address=127.0.0.1
port=$port
mysqlx=OFF
# root comes in over the socket only: without names, 127.0.0.1 is not \`localhost\`.
skip-name-resolve=ON
secure-file-priv=NULL
server-id=$port
log-bin=binlog
gtid-mode=ON
enforce-gtid-consistency=ON
binlog-row-metadata=FULL
innodb-buffer-pool-size=256M
EOF
        spawn "$dir/mysql.pid" "$dir/mysql.log" "$CACHE/bin/mysqld" --defaults-file="$dir/mysql/my.cnf"
        if wait_until 60 "$dir/mysql.pid" mysql_root "$dir" -e 'DO 1'; then
            printf '%s\n' "$port" >"$dir/mysql.port"
            return 0
        fi
        end "$dir/mysql.pid" TERM 10
    done
    tail -n 20 "$dir/mysql.log" >&2
    die "MySQL did not start (its log: $dir/mysql.log)"
}

# mysql_root DIR ARGUMENT...: the client as root, over the socket.
mysql_root() {
    local dir=$1
    shift
    "$CACHE/bin/mysql" --no-defaults -uroot --socket="$(mysql_sockets "$dir")/mysql.sock" --default-character-set=utf8mb4 "$@"
}

# ---- PostgreSQL

# PostgreSQL does not run as root. As root, its user is \`postgres\`.
postgres_user() { if [ "$(id -u)" = 0 ]; then echo postgres; else id -un; fi; }

# What stands before a command of that user. Each part of it gives way to the next, so that a process id is the command's own.
if [ "$(id -u)" = 0 ]; then
    AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups --reset-env -- env -C /)
else
    AS_POSTGRES=(env)
fi

# Where the cluster lies: in the folder, or, where that user may not go there (a checkout below /root), among the temporary files.
postgres_home() {
    if "${AS_POSTGRES[@]}" test -x "$1"; then printf '%s\n' "$1/pg"; else printf '/var/tmp/plumbline-pg-%s\n' "$(printf '%s' "$1" | cksum | tr ' ' -)"; fi
}

postgres_init() {
    local dir=$1 log=$1/pg.log home
    home=$(postgres_home "$dir")
    rm -rf "$home"
    mkdir -p -m 700 "$home"
    (umask 077 && od -An -N18 -tx1 /dev/urandom | tr -d ' \n' >"$dir/pg-superuser")
    (umask 077 && cat "$dir/pg-superuser" >"$home/superuser")
    [ "$(id -u)" != 0 ] || chown -R postgres: "$home"
    "${AS_POSTGRES[@]}" "$POSTGRES_BIN/initdb" -D "$home/data" -U postgres -A scram-sha-256 --pwfile="$home/superuser" \
        -E UTF8 --locale=C.UTF-8 --no-instructions </dev/null >"$log" 2>&1 9>&- ||
        { tail -n 20 "$log" >&2; die "PostgreSQL could not make its data folder"; }
    rm -f "$home/superuser"
    : >"$dir/pg.ready"
}

postgres_start() {
    local dir=$1 tries port home
    if running "$dir/pg.pid" >/dev/null && postgres_root "$dir" -c 'SELECT 1' >/dev/null 2>&1; then return 0; fi
    end "$dir/pg.pid" INT 30
    home=$(postgres_home "$dir")
    for tries in 1 2 3; do
        # shellcheck disable=SC2046,SC2086 # as above
        port=$(free_port $(cat "$dir/pg.port" 2>/dev/null) ${2-})
        printf '%s\n' "$port" >"$dir/pg.port"
        spawn "$dir/pg.pid" "$dir/pg.log" "${AS_POSTGRES[@]}" "$POSTGRES_BIN/postgres" -D "$home/data" \
            -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories= -c shared_buffers=256MB -c max_wal_size=2GB
        if wait_until 60 "$dir/pg.pid" postgres_root "$dir" -c 'SELECT 1'; then return 0; fi
        end "$dir/pg.pid" INT 10
    done
    tail -n 20 "$dir/pg.log" >&2
    die "PostgreSQL did not start (its log: $dir/pg.log)"
}

# postgres_root DIR ARGUMENT...: psql as the superuser.
postgres_root() {
    local dir=$1
    shift
    PGPASSWORD=$(cat "$dir/pg-superuser") PGAPPNAME=stack "$POSTGRES_BIN/psql" -X -q -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$(cat "$dir/pg.port")" -U postgres -d "${PGDB:-postgres}" "$@"
}

# ---- Users, and how to connect

# The agent's users have what it needs and no more; `app` is the team's own application.
make_users() {
    local dir=$1
    mysql_root "$dir" <<'SQL'
CREATE DATABASE IF NOT EXISTS shop;
CREATE USER IF NOT EXISTS plumbline@'%' IDENTIFIED BY 'plumbline';
GRANT SELECT ON shop.* TO plumbline@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO plumbline@'%';
CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app';
GRANT ALL PRIVILEGES ON shop.* TO app@'%';
SQL
    postgres_root "$dir" <<'SQL'
SELECT 'CREATE ROLE plumbline LOGIN' WHERE to_regrole('plumbline') IS NULL \gexec
ALTER ROLE plumbline PASSWORD 'plumbline';
SELECT 'CREATE DATABASE plumbline OWNER plumbline' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'plumbline') \gexec
SQL
    PGDB=plumbline postgres_root "$dir" -c 'ALTER SCHEMA public OWNER TO plumbline'
}

# The user of Debezium's connector: what it asks for, so that the agent's own user need not have it.
make_debezium_user() {
    mysql_root "$1" <<'SQL'
CREATE USER IF NOT EXISTS debezium@'%' IDENTIFIED BY 'debezium';
GRANT SELECT ON shop.* TO debezium@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, SHOW DATABASES ON *.* TO debezium@'%';
SQL
}

# For developing: `dev` may do everything on both sides, `plumbline` and `debezium` may read every database.
make_dev_users() {
    local dir=$1
    mysql_root "$dir" <<'SQL'
CREATE USER IF NOT EXISTS dev@'%' IDENTIFIED BY 'dev';
GRANT ALL PRIVILEGES ON *.* TO dev@'%' WITH GRANT OPTION;
GRANT SELECT ON *.* TO plumbline@'%';
GRANT SELECT ON *.* TO debezium@'%';
SQL
    postgres_root "$dir" <<'SQL'
SELECT 'CREATE ROLE dev SUPERUSER LOGIN' WHERE to_regrole('dev') IS NULL \gexec
ALTER ROLE dev PASSWORD 'dev';
SQL
}

write_env() {
    local dir=$1
    {
        printf '%s=%q\n' \
            MYSQL_HOST 127.0.0.1 MYSQL_PORT "$(cat "$dir/mysql.port")" \
            MYSQL_USER plumbline MYSQL_PASSWORD plumbline MYSQL_DATABASE shop \
            MYSQL_APP_USER app MYSQL_APP_PASSWORD app \
            DEBEZIUM_USER debezium DEBEZIUM_PASSWORD debezium \
            MYSQL_ROOT_SOCKET "$(mysql_sockets "$dir")/mysql.sock" MYSQL_CLIENT "$CACHE/bin/mysql" \
            POSTGRES_HOST 127.0.0.1 POSTGRES_PORT "$(cat "$dir/pg.port")" \
            POSTGRES_USER plumbline POSTGRES_PASSWORD plumbline POSTGRES_DATABASE plumbline POSTGRES_SCHEMA public \
            POSTGRES_CLIENT "$POSTGRES_BIN/psql"
    } >"$dir/env.$$"
    chmod 600 "$dir/env.$$"
    mv "$dir/env.$$" "$dir/env"
}
