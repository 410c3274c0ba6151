//! What went wrong with the database, in words that say what to do next: damage is told from a world that failed.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::StoreError;
use super::entry::quoted;
use super::sqlite::NAME;

/// An error of the library.
pub(super) fn from_sql(path: &Path, doing: &'static str, error: rusqlite::Error) -> StoreError {
    // What the world around the file can do to it. All else (a statement that no longer fits, a format that is not
    // known, a value of another type) says that the file is not as we wrote it.
    let outside = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::TooBig
        )
    );
    if outside { StoreError::Failed { doing, why: failure(path, &error) } } else { corrupt(path, &error.to_string()) }
}

fn failure(path: &Path, error: &rusqlite::Error) -> String {
    let code = error.sqlite_error_code();
    let next = if code == Some(ErrorCode::DiskFull) {
        "make room on its file system; what was saved before stands"
    } else if matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
        "another program has it open; close that (`fuser` names it)"
    } else {
        "look at the disk and the kernel's log; what was saved before stands"
    };
    format!("{}: {error}; {next}", path.display())
}

/// It is not as we wrote it.
pub(super) fn corrupt(path: &Path, why: &str) -> StoreError {
    let dir = path.parent().unwrap_or(path);
    let kept = PathBuf::from(format!("{}.refused", dir.display()));
    StoreError::Corrupt(format!(
        "{} cannot be trusted: {why}. It was left as it is. Keep it (`mkdir -m 700 {kept} && mv {dir}/{NAME}* {kept}`), \
         then put a copy in its place, or start with no run remembered",
        path.display(),
        kept = quoted(&kept),
        dir = quoted(dir),
    ))
}

/// It is of a version that we do not know.
pub(super) fn newer(path: &Path, version: usize, known: usize) -> StoreError {
    StoreError::Newer(format!(
        "{} was written by a newer agent-loop (its version is {version}, this one knows {known}): start the newer one \
         again, or put back the copy it kept as {NAME}.v{known}",
        path.display()
    ))
}
