//! The log on standard error, whose filter a reload may change.

use std::{
    io::Write,
    sync::{PoisonError, RwLock},
};

use env_logger::{Builder, Env, Logger};
use ::log::{Level, Log, Metadata, Record};

use crate::systemd;

/// env_logger alone keeps the filter that it began with.
struct Changeable(RwLock<Option<Logger>>);

static LOG: Changeable = Changeable(RwLock::new(None));

impl Changeable {
    fn with(&self, act: impl FnOnce(&Logger)) {
        let logger = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(logger) = &*logger {
            act(logger);
        }
    }
}

impl Log for Changeable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let mut enabled = false;
        self.with(|logger| enabled = logger.enabled(metadata));
        enabled
    }

    fn log(&self, record: &Record<'_>) {
        self.with(|logger| logger.log(record));
    }

    fn flush(&self) {
        self.with(Log::flush);
    }
}

/// Lines for people carry the time and level, lines for the journal its priority (`sd-daemon(3)`);
/// RUST_LOG wins over `filter`. A later call changes the filter.
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
    // Fails from the second call on, and is in force by then.
    let _ = ::log::set_logger(&LOG);
}
