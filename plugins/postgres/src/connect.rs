//! Connections: the session's settings, and errors that say what to mend.

use std::future::Future;
use std::io;
use std::time::Duration;

use plumbline_sdk::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSslMode};
use sqlx::{ConnectOptions, Executor};

use crate::config::{PostgresConfig, SslMode};
use crate::error::{Doing, ServerSaid};
use crate::quote::ident;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads, and cannot write by accident.
    Read,
    /// Writes by key: plans that scan a whole table for one row are never chosen where an index can serve.
    Write,
}

/// How long a server may take to let us in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer may take before we ask, on another connection, what the server is doing for us.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Tells a server that works from one that is gone without a word: a half-open connection would be waited on for a quarter of an hour.
#[derive(Debug, Clone)]
pub struct Pulse {
    config: PostgresConfig,
    process: i32,
}

impl Pulse {
    /// The pulse of this connection.
    pub async fn of(config: &PostgresConfig, connection: &mut PgConnection) -> Result<Self> {
        let process = sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await.doing("asking for the session's process")?;
        Ok(Self { config: config.clone(), process })
    }

    /// Waits for `answer` as long as the server works on it. `Err`: it waits for us as we wait for it, or it is gone; the connection is
    /// then not to be used any more.
    pub async fn guard<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(answer);
        let mut silent = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(ANSWER_PATIENCE, &mut answer).await {
                return Ok(answer);
            }
            silent = if self.works().await { 0 } else { silent + 1 };
            if silent > 1 {
                return Err(Error::disconnected(format!("the connection to PostgreSQL at `{}:{}` went silent", self.config.host, self.config.port)));
            }
        }
    }

    async fn works(&self) -> bool {
        let asked = async {
            let mut connection = connect(&self.config, Role::Read).await?;
            sqlx::query_scalar::<_, bool>(
                "SELECT coalesce(wait_event_type, '') <> 'Client' OR state_change > pg_catalog.clock_timestamp() - interval '5 s' FROM pg_catalog.pg_stat_activity WHERE pid = $1",
            )
            .bind(self.process)
            .fetch_optional(&mut connection)
            .await
            .doing("asking what the server is doing")
        };
        matches!(tokio::time::timeout(CONNECT_PATIENCE, asked).await, Ok(Ok(Some(true))))
    }
}

/// The settings on which the text of values and the meaning of our statements depend; everything else is the server's.
const SESSION: &str = "SET search_path = ''; SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; \
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmloption = 'content'; SET standard_conforming_strings = on; \
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0; SET client_min_messages = error; \
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// Connects and prepares the session.
pub async fn connect(config: &PostgresConfig, role: Role) -> Result<PgConnection> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.user)
        .password(config.password.expose())
        .database(&config.database)
        .ssl_mode(match config.sslmode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Allow => PgSslMode::Allow,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        })
        .application_name("plumbline")
        .statement_cache_capacity(500)
        .extra_float_digits(Some(1))
        .disable_statement_logging();
    if let Some(file) = &config.sslrootcert {
        options = options.ssl_root_cert(file);
    }
    let mut connection = match tokio::time::timeout(CONNECT_PATIENCE, options.connect()).await {
        Ok(connected) => connected.map_err(|error| explain(config, error))?,
        Err(_) => {
            return Err(Error::disconnected(format!(
                "PostgreSQL at `{}:{}` did not answer within {} s; check `POSTGRES_HOST`, and what stands between",
                config.host,
                config.port,
                CONNECT_PATIENCE.as_secs()
            )));
        }
    };
    connection.execute(SESSION).await.doing("preparing the session")?;
    let role = match role {
        Role::Read => "SET default_transaction_read_only = on",
        Role::Write => {
            "SET default_transaction_read_only = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
        }
    };
    connection.execute(role).await.doing("preparing the session")?;
    Ok(connection)
}

/// Whether the connection is encrypted.
pub async fn is_encrypted(connection: &mut PgConnection) -> Result<bool> {
    let ssl: Option<bool> = sqlx::query_scalar("SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()")
        .fetch_optional(connection)
        .await
        .doing("asking whether the connection is encrypted")?;
    Ok(ssl.unwrap_or(false))
}

/// One clear sentence for what can go wrong between here and a session.
fn explain(config: &PostgresConfig, error: sqlx::Error) -> Error {
    let at = format!("PostgreSQL at `{}:{}`", config.host, config.port);
    match error {
        sqlx::Error::Database(said) => match said.try_downcast_ref::<PgDatabaseError>() {
            Some(said) => refused(config, &at, ServerSaid::of(said)),
            None => Error::disconnected(format!("{at} answered in a way this version does not know")),
        },
        sqlx::Error::Tls(cause) => tls(config, &at).caused_by(cause),
        sqlx::Error::Io(io) => match io.kind() {
            // How rustls tells that it does not trust a certificate.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => tls(config, &at).caused_by(io),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if config.sslrootcert.is_some() => {
                Error::config("the file that `POSTGRES_SSLROOTCERT` names cannot be read").caused_by(io)
            }
            io::ErrorKind::ConnectionRefused => Error::disconnected(format!("nothing listens where {at} should; check `POSTGRES_HOST` and `POSTGRES_PORT`, and that the server runs")),
            _ if looks_like_name(&io) => Error::disconnected(format!("the host name `{}` of PostgreSQL cannot be resolved; check `POSTGRES_HOST`", config.host)),
            _ => Error::disconnected(format!("{at} cannot be reached")).caused_by(io),
        },
        sqlx::Error::Configuration(cause) => {
            Error::config(format!("the settings for {at} cannot be used; check `POSTGRES_SSLROOTCERT` and `POSTGRES_HOST`")).caused_by(cause)
        }
        other => Error::disconnected(format!("{at} cannot be reached")).caused_by(other),
    }
}

fn tls(config: &PostgresConfig, at: &str) -> Error {
    Error::config(format!("TLS with {at} failed; check `POSTGRES_SSLMODE` (now `{}`) and `POSTGRES_SSLROOTCERT`", mode_word(config.sslmode)))
}

fn refused(config: &PostgresConfig, at: &str, said: ServerSaid) -> Error {
    let PostgresConfig { user, database, .. } = config;
    match said.code.as_str() {
        "28P01" => Error::config(format!("{at} refused the password of user `{user}`; set `POSTGRES_PASSWORD` to that user's password")),
        "28000" => Error::config(format!("{at} does not let user `{user}` in from here; it wants such a role that may log in, and an entry in pg_hba.conf")).caused_by(said),
        "3D000" => Error::config(format!("there is no database `{database}` on {at}; set `POSTGRES_DATABASE` to one that exists, or: CREATE DATABASE {}", ident(database))),
        "42501" => Error::config(format!(
            "user `{user}` may not connect to database `{database}`; mend it with: GRANT CONNECT ON DATABASE {} TO {}",
            ident(database),
            ident(user)
        )),
        "53300" => Error::disconnected(format!("{at} has no connection left; raise `max_connections` or end idle sessions")),
        "57P03" => Error::disconnected(format!("{at} is starting up or shutting down")).caused_by(said),
        _ => Error::disconnected(format!("{at} refused the connection")).caused_by(said),
    }
}

fn mode_word(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

/// The resolver's failures have no kind of their own.
fn looks_like_name(error: &io::Error) -> bool {
    let text = error.to_string();
    ["lookup address", "Name or service not known", "name resolution", "nodename nor servname"].iter().any(|known| text.contains(known))
}
