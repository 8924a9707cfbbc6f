//! One way to open a connection, and what MySQL's errors ask of the caller.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, OptsBuilder, SslOpts};
use plumbline_sdk::{Error, ErrorKind, Result};

use crate::config::{MysqlConfig, SslMode};

/// The session that every reader and the oracle of the type rules rely on: UTC, utf8mb4, CHAR without padding, invisible keys shown.
pub(crate) const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', net_write_timeout = 3600, net_read_timeout = 3600, wait_timeout = 86400",
    "SET SESSION information_schema_stats_expiry = 0",
];
/// Known since MySQL 8.0.30.
pub(crate) const SHOW_INVISIBLE_KEYS: &str = "SET SESSION show_gipk_in_create_table_and_information_schema = ON";

/// Opens a connection with the session that readers rely on.
pub async fn connect(config: &MysqlConfig) -> Result<Conn> {
    let mut conn = open(config).await?;
    for statement in SESSION {
        conn.query_drop(statement).await.map_err(|cause| error(config, "the session could not be set up", cause))?;
    }
    // A server that does not know it has no invisible keys.
    let _ = conn.query_drop(SHOW_INVISIBLE_KEYS).await;
    Ok(conn)
}

async fn open(config: &MysqlConfig) -> Result<Conn> {
    if let Some(path) = config.ssl_ca.as_ref().filter(|_| matches!(config.ssl_mode, SslMode::VerifyCa | SslMode::VerifyIdentity)) {
        std::fs::metadata(path).map_err(|cause| Error::config(format!("the file `{}` that `MYSQL_SSL_CA` names cannot be read", path.display())).caused_by(cause))?;
    }
    let builder = OptsBuilder::default()
        .ip_or_hostname(config.host.clone())
        .tcp_port(config.port)
        .user(Some(config.user.clone()))
        .pass(Some(config.password.expose().to_owned()).filter(|password| !password.is_empty()))
        .db_name(Some(config.database.clone()).filter(|database| !database.is_empty()))
        .prefer_socket(false)
        .max_allowed_packet(Some(1024 * 1024 * 1024))
        .tcp_keepalive(Some(std::time::Duration::from_secs(30)))
        .stmt_cache_size(Some(0));
    let plain = |builder: OptsBuilder| Opts::from(builder);
    let tls = match config.ssl_mode {
        SslMode::Disabled => None,
        SslMode::Preferred | SslMode::Required => Some(SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)),
        SslMode::VerifyCa => Some(roots(config).with_danger_skip_domain_validation(true)),
        SslMode::VerifyIdentity => Some(roots(config)),
    };
    let said = |cause| error(config, "MySQL cannot be reached", cause);
    match tls {
        None => Conn::new(plain(builder)).await.map_err(said),
        Some(options) => match Conn::new(plain(builder.clone().ssl_opts(Some(options)))).await {
            // A server without TLS: `preferred` goes on without.
            Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)) if config.ssl_mode == SslMode::Preferred => Conn::new(plain(builder)).await.map_err(said),
            other => other.map_err(said),
        },
    }
}

/// Whether the failure is one of TLS: the driver hands on what rustls says of a certificate as invalid input.
fn is_tls(cause: &mysql_async::IoError) -> bool {
    match cause {
        mysql_async::IoError::Tls(_) => true,
        mysql_async::IoError::Io(io) => io.kind() == std::io::ErrorKind::InvalidData && io.to_string().contains("certificate"),
    }
}

fn roots(config: &MysqlConfig) -> SslOpts {
    match &config.ssl_ca {
        Some(path) => SslOpts::default().with_root_certs(vec![path.clone().into()]),
        None => SslOpts::default(),
    }
}

/// What a driver's error asks of the caller, with a message that names the thing. No secret is in either.
pub fn error(config: &MysqlConfig, doing: &str, cause: mysql_async::Error) -> Error {
    let place = format!("{}:{}", config.host, config.port);
    let (kind, message) = match &cause {
        mysql_async::Error::Server(server) => match server.code {
            1045 | 1698 => (ErrorKind::Config, format!("MySQL at `{place}` refuses user `{}`: check `MYSQL_USER` and `MYSQL_PASSWORD`", config.user)),
            1044 => (ErrorKind::Config, format!("user `{}` may not use database `{}`: `GRANT SELECT ON `{}`.* TO '{}'@'%'`", config.user, config.database, config.database, config.user)),
            1049 => (ErrorKind::Config, format!("MySQL at `{place}` has no database `{}`: check `MYSQL_DATABASE`", config.database)),
            1142 | 1143 => (ErrorKind::Config, format!("user `{}` may not read a table: `GRANT SELECT ON `{}`.* TO '{}'@'%'`", config.user, config.database, config.user)),
            1227 => (
                ErrorKind::Config,
                format!("user `{}` lacks a privilege: `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{}'@'%'`", config.user, config.user),
            ),
            1129 | 1130 => (ErrorKind::Config, format!("MySQL at `{place}` accepts no connection from this host: create the user `{}` for it, or unblock the host with `TRUNCATE performance_schema.host_cache`", config.user)),
            1820 | 1862 | 3118 => (ErrorKind::Config, format!("the account of user `{}` on MySQL at `{place}` is locked or its password has expired: `ALTER USER` mends it", config.user)),
            3159 => (ErrorKind::Config, format!("MySQL at `{place}` wants TLS: set `MYSQL_SSL_MODE` to `required` or stricter")),
            1146 | 1054 | 1356 => (ErrorKind::Rejected, format!("{doing}: the table or a column of it is gone")),
            1040 | 1053 | 1203 | 1205 | 1213 | 2006 | 2013 | 3024 | 1317 => (ErrorKind::Disconnected, format!("{doing} (`{place}`)")),
            _ => (ErrorKind::Rejected, format!("{doing} (`{place}`)")),
        },
        mysql_async::Error::Io(cause) if is_tls(cause) => (
            ErrorKind::Config,
            format!("TLS with MySQL at `{place}` fails: `MYSQL_SSL_CA` must name the authority that signed its certificate, and the certificate must be for this host; `MYSQL_SSL_MODE=required` encrypts without asking who it is"),
        ),
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => {
            (ErrorKind::Disconnected, format!("{doing} (`{place}`): is `MYSQL_HOST`, `MYSQL_PORT` right and the server up?"))
        }
        // A server that does not know a user does not say so: it asks for a password in the oldest way it has.
        mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { name }) => (
            ErrorKind::Config,
            format!("MySQL at `{place}` does not know user `{}`, or lets it in by `{name}` only: check `MYSQL_USER`; the user's plugin must be `caching_sha2_password` or `mysql_native_password`", config.user),
        ),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            (ErrorKind::Config, format!("MySQL at `{place}` offers no TLS: set `MYSQL_SSL_MODE` to `preferred` or `disabled`, or switch TLS on there"))
        }
        _ => (ErrorKind::Disconnected, format!("{doing} (`{place}`)")),
    };
    Error::new(kind, message).caused_by(cause)
}
