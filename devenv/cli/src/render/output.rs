//! Lines to stdout and stderr, for people and for programs, where a reader that has
//! gone or a full disk is an outcome and no panic.

use std::{
    fmt,
    io::{self, Write},
    sync::Mutex,
    sync::PoisonError,
};

/// The first error of stdout.
static FAILED: Mutex<Option<io::ErrorKind>> = Mutex::new(None);

/// Prints a line of data.
macro_rules! outln {
    ($($arg:tt)*) => { $crate::render::output::out(format_args!($($arg)*)) };
}

/// Prints a line of talk.
macro_rules! errln {
    ($($arg:tt)*) => { $crate::render::output::err(format_args!($($arg)*)) };
}

pub(super) use {errln, outln};

/// Prints a line to stdout; once that has failed, nothing more is tried.
pub(super) fn out(line: fmt::Arguments<'_>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_some() {
        return;
    }
    if let Err(e) = writeln!(anstream::stdout(), "{line}") {
        *failed = Some(e.kind());
        if e.kind() != io::ErrorKind::BrokenPipe {
            err(format_args!("error: can't write to stdout: {e}"));
        }
    }
}

/// Prints a line to stderr. Where that is closed, there is nobody to tell.
pub(super) fn err(line: fmt::Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Whether nobody takes what is printed to stdout any more.
pub fn gone() -> bool {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.is_some()
}

/// Whether what was printed is lost: not because its reader had enough of it.
pub fn lost() -> bool {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.is_some_and(|kind| kind != io::ErrorKind::BrokenPipe)
}
