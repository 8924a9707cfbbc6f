//! `redis-store.json` in the data folder: which store this agent has written to, so that an empty Redis is not taken for a new one.

use std::io;
use std::path::{Path, PathBuf};

use plumbline_sdk::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::folder;

/// Its file name in the data folder.
pub(super) const FILE: &str = "redis-store.json";

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The name that the store gave itself when it was made.
    pub store: String,
    /// Whose history it is.
    pub pipeline: String,
    /// The key of its line, for the person who looks for it.
    pub key: String,
    /// Where it was, for the person too: `host:port`, and the number of the database.
    pub server: String,
}

pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What was written here before; None: nothing.
pub(super) fn read(data_dir: &Path, pipeline: &str) -> Result<Option<Marker>> {
    let path = path(data_dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(folder::refused(data_dir, error, "cannot be read")),
    };
    let marker: Marker = serde_json::from_str(&text).map_err(|error| {
        Error::config(format!("`{}` does not name a store: remove it if the history in Redis is the right one", path.display())).caused_by(error)
    })?;
    if marker.pipeline != pipeline {
        return Err(Error::config(format!(
            "the data folder `{}` belongs to the pipeline `{}`, not to `{pipeline}`: give each pipeline a folder of its own in `PLUMBLINE_DATA_DIR`",
            data_dir.display(),
            marker.pipeline
        )));
    }
    Ok(Some(marker))
}

pub(super) fn write(data_dir: &Path, marker: &Marker) -> Result<()> {
    let text = serde_json::to_vec_pretty(marker).map_err(|error| Error::fatal("the name of the store cannot be written as JSON").caused_by(error))?;
    let path = path(data_dir);
    folder::write_private(&path, &text).map_err(|error| {
        Error::disconnected(format!("`{}` cannot be written: free space in its folder or mend its mode, the line waits and goes on by itself", path.display())).caused_by(error)
    })
}
