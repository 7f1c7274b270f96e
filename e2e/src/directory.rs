use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The directory of one test: removed with it, unless `VDBI_KEEP=1` asks for it to stay.
///
/// Its path is short, because a unix socket's path has at most 107 characters.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    removed_on_drop: Option<TempDir>,
}

impl Directory {
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("vdbi-")
            .tempdir()
            .context("no directory for the test could be made")?;
        // PostgreSQL runs as another user when the tests run as root, and has to reach its own directory below this one.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        if std::env::var_os("VDBI_KEEP").is_some_and(|keep| keep == "1") {
            let path = directory.keep();
            eprintln!("the directory of this test is kept: {}", path.display());
            return Ok(Self { path, removed_on_drop: None });
        }
        Ok(Self { path: directory.path().to_owned(), removed_on_drop: Some(directory) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("{} could not be made", path.display()))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(directory) = self.removed_on_drop.take() {
            let path = directory.path().to_owned();
            if let Err(error) = directory.close() {
                eprintln!("{} could not be removed: {error}", path.display());
            }
        }
    }
}
