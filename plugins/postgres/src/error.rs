//! What PostgreSQL answers, as errors whose kind is an instruction. No cell value gets into a message.

use std::fmt;

use plumbline_sdk::{Error, ErrorKind};
use sqlx::postgres::PgDatabaseError;

/// What the server said, without values: its words may quote a cell.
#[derive(Debug, Clone)]
pub(crate) struct ServerSaid {
    /// SQLSTATE.
    pub code: String,
    /// The message, with quoted values blanked where they may be of a row.
    pub message: String,
    /// The table it names.
    pub table: Option<String>,
}

impl fmt::Display for ServerSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl std::error::Error for ServerSaid {}

impl ServerSaid {
    /// What `error` says.
    pub fn of(error: &PgDatabaseError) -> Self {
        Self {
            code: error.code().to_owned(),
            message: without_values(error.code(), error.message()),
            table: error.table().map(str::to_owned),
        }
    }
    /// Whether a constraint between rows was violated: applying in another order may succeed.
    pub fn is_order(&self) -> bool {
        matches!(self.code.as_str(), "23505" | "23503" | "23P01")
    }
    /// Whether trying again later is the answer: the server or its disk is the trouble, not what we sent.
    fn is_away(&self) -> bool {
        matches!(self.code.get(..2), Some("08" | "53" | "55" | "57" | "58" | "40" | "F0")) || self.code == "25006" || self.code == "25P03"
    }
}

/// Messages of data errors (class 22) quote values: everything between the first and the last quote goes. What a trigger of the target
/// says (class P0) may be anything.
fn without_values(code: &str, message: &str) -> String {
    if code.starts_with("P0") {
        return "a trigger or function of the target raised an error".into();
    }
    let quotes = code.starts_with("22");
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if quotes && last > first => format!("{}\"…\"{}", &message[..first], &message[last + 1..]),
        _ => message.to_owned(),
    }
}

/// A failed statement: what the server said where it said something, or why it could not be reached.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server is away, or its state is the trouble: reconnect and try again.
    Away(Error),
    /// The server refused the statement.
    Said(ServerSaid),
    /// Our own refusal.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                Some(pg) => {
                    let said = ServerSaid::of(pg);
                    if said.is_away() { Self::Away(away(&said)) } else { Self::Said(said) }
                }
                None => Self::Ours(Error::fatal("the database answered in a way this version does not know")),
            },
            // Never formatted: these may carry parts of rows.
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                Self::Ours(Error::fatal("a value could not be exchanged with PostgreSQL; this is a defect of `plumbline-postgres`"))
            }
            sqlx::Error::Io(io) => Self::Away(Error::disconnected("the connection to PostgreSQL was lost").caused_by(io)),
            other => Self::Away(Error::disconnected("the connection to PostgreSQL was lost").caused_by(other)),
        }
    }
}

fn away(said: &ServerSaid) -> Error {
    let what = match said.code.as_str() {
        "53100" => "PostgreSQL's disk is full; nothing is lost, writing goes on when there is room",
        "53300" => "PostgreSQL has no connection left; raise `max_connections` or end idle sessions",
        "25006" => "PostgreSQL is read-only here (a standby, or `default_transaction_read_only` is on); connect to the primary",
        "57P03" => "PostgreSQL is starting up or shutting down",
        "57P01" | "57P02" => "PostgreSQL ended the connection",
        _ => "PostgreSQL cannot take this now",
    };
    Error::disconnected(what).caused_by(said.clone())
}

impl Failure {
    /// The error for a caller to whom the failed thing is all there is: refused, or away.
    pub fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Away(error) | Self::Ours(error) => error,
            Self::Said(said) => {
                let kind = match said.code.as_str() {
                    "42501" | "3F000" => ErrorKind::Config,
                    _ => ErrorKind::Rejected,
                };
                Error::new(kind, format!("PostgreSQL refused: {doing}")).caused_by(said)
            }
        }
    }
}

/// [`Failure::into_error`] for results of sqlx.
pub(crate) trait Doing<T> {
    /// Says what was being done, in words that follow `PostgreSQL refused: `.
    fn doing(self, what: &str) -> plumbline_sdk::Result<T>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, what: &str) -> plumbline_sdk::Result<T> {
        self.map_err(|error| Failure::from(error).into_error(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_get_into_messages() {
        let check = |code, message, expected| assert_eq!(without_values(code, message), expected);
        check("22P02", "invalid input syntax for type integer: \"4 or \"5\"\"", "invalid input syntax for type integer: \"…\"");
        check("22003", "value \"300\" is out of range for type smallint", "value \"…\" is out of range for type smallint");
        check("22001", "value too long for type character varying(5)", "value too long for type character varying(5)");
        check("23502", "null value in column \"a\" of relation \"t\"", "null value in column \"a\" of relation \"t\"");
        check("P0001", "no secret 5 here", "a trigger or function of the target raised an error");
    }
}
