//! What SQLite says, as an instruction.

use std::path::Path;

use plumbline_sdk::Error;

/// Primary result codes of SQLite (https://www.sqlite.org/rescode.html); the extended ones have them in their low byte.
mod code {
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

/// An error on the file `path`, whose folder is the data folder.
pub(super) fn classify(path: &Path, error: sqlx::Error) -> Error {
    let file = path.display();
    let folder = path.parent().unwrap_or(path).display();
    let primary = match &error {
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff),
        sqlx::Error::Io(_) => Some(code::IOERR),
        // The worker of the connection is gone, or all of the pool are busy: open again.
        sqlx::Error::WorkerCrashed | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Some(code::BUSY),
        _ => None,
    };
    match primary {
        Some(code::FULL) => Error::disconnected(format!("no space left for the history in `{folder}`: free some, the line waits and goes on by itself")),
        Some(code::IOERR) => Error::disconnected(format!("the disk under `{folder}` refuses the history: see that it has space and is well, the line waits and goes on by itself")),
        Some(code::READONLY | code::PERM) => {
            Error::disconnected(format!("the history `{file}` cannot be written: see its owner, mode and whether the disk is mounted read-only"))
        }
        Some(code::CANTOPEN) => Error::disconnected(format!("the history `{file}` cannot be opened: see that the folder `{folder}` is there and may be written")),
        Some(code::BUSY | code::LOCKED) => Error::disconnected(format!("the history `{file}` is locked by another program")),
        Some(code::CORRUPT | code::NOTADB) => Error::fatal(format!(
            "the history `{file}` is damaged or not a history: bring it back from a backup, or move it away to count from zero"
        )),
        _ => Error::fatal(format!("the history `{file}` does not do what it must: was it changed by another program?")),
    }
    .caused_by(error)
}
