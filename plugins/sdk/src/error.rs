//! Errors whose kind is an instruction to the caller.

use std::error::Error as StdError;
use std::fmt;

/// The result of every contract in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller must do. A new kind needs a new branch in the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The configuration or the environment must be mended by a person; trying again changes nothing.
    Config,
    /// The other side is away: reconnect with backoff and go on from the stored position.
    Disconnected,
    /// This one thing (a table, a request) was refused; the rest goes on.
    Rejected,
    /// The store stands behind what it told earlier (it lost its tail, failed over, or an older copy was put back), and nothing was written:
    /// connect again, ask its `position`, and start the stream again from there. To write the same batch again would leave a hole.
    Rewound,
    /// Going on could lose or invent something: stop, say so, wait for a person.
    Fatal,
}

/// An error of a plugin. The message names the thing in backticks and says what would have been accepted;
/// the cause is [`source`](StdError::source), never formatted into the message. No secret and no cell value is in either.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
    /// A person must mend the configuration or the environment.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }
    /// The other side is away.
    pub fn disconnected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Disconnected, message)
    }
    /// This one thing was refused.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, message)
    }
    /// The store went back: the stream must start again from its position.
    pub fn rewound(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rewound, message)
    }
    /// Going on could lose or invent something.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, message)
    }
    /// The same error with its cause.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }
    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// The message and its causes in one line, for logs and for `/health`.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|cause| &**cause as &(dyn StdError + 'static))
    }
}
