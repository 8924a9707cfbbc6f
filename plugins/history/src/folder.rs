//! What every history keeps in the data folder.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use plumbline_sdk::{Error, Result};

/// The secret of the key hashes: a file beside the history, so that a copy of the history alone gives no key away. Made where there is none.
pub(crate) fn secret(data_dir: &Path) -> Result<[u8; 32]> {
    let path = data_dir.join("history.secret");
    let failed = |error: io::Error| {
        Error::disconnected(format!("the secret of the key hashes `{}` cannot be read or written", path.display())).caused_by(error)
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            if let Ok(secret) = <[u8; 32]>::try_from(bytes) {
                return Ok(secret);
            }
            tracing::warn!(file = %path.display(), "the secret of the key hashes is not one: a new one is made, equal keys hash to something else from now on");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let secret: [u8; 32] = rand::random();
    write_private(&path, &secret).map_err(failed)?;
    Ok(secret)
}

/// Creates the folder where it is not there.
pub(crate) fn create(data_dir: &Path) -> Result<()> {
    std::fs::create_dir_all(data_dir).map_err(|error| refused(data_dir, error, "cannot be created"))
}

/// The folder does not let us.
pub(crate) fn refused(data_dir: &Path, error: io::Error, what: &str) -> Error {
    let folder = data_dir.display();
    Error::config(format!("the data folder `{folder}` {what}: mend that, or name another one in `PLUMBLINE_DATA_DIR`")).caused_by(error)
}

/// Replaces a file whole, readable by us alone.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}
