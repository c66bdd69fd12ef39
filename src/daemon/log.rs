//! The log on standard error, whose filter a reload may change.

use std::{
    io::Write,
    sync::{PoisonError, RwLock},
};

use ::log::{Level, Log, Metadata, Record};
use env_logger::{Builder, Env, Logger};

use crate::systemd;

/// env_logger alone cannot change its filter.
struct Changeable(RwLock<Option<Logger>>);

static LOG: Changeable = Changeable(RwLock::new(None));

impl Log for Changeable {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        // `Logger::log` filters by itself.
        true
    }

    fn log(&self, record: &Record<'_>) {
        let logger = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(logger) = &*logger {
            logger.log(record);
        }
    }

    /// Each line is written at once.
    fn flush(&self) {}
}

/// Logs to standard error. A line carries the time and the level or, where it goes to the journal, the journal's
/// priority (`sd-daemon(3)`). RUST_LOG wins over `filter`. A later call changes the filter.
pub(super) fn to_stderr(filter: &str) {
    let journal = systemd::is_journal(std::io::stderr());
    let logger = Builder::from_env(Env::default().default_filter_or(filter))
        .format(move |out, record| {
            if journal {
                let priority = match record.level() {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                writeln!(out, "<{priority}>{}", record.args())
            } else {
                let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
                writeln!(out, "{time} {:<5} {}", record.level(), record.args())
            }
        })
        .build();
    ::log::set_max_level(logger.filter());
    *LOG.0.write().unwrap_or_else(PoisonError::into_inner) = Some(logger);
    // Fails from the second call on, when it is set already.
    let _ = ::log::set_logger(&LOG);
}
