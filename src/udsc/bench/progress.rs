//! The progress bar, on standard error where that is a terminal. Gone without a trace at the end.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar; removed when dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of something that takes so long.
    pub(super) fn new(whole: Duration) -> Self {
        let bar = ProgressBar::new(whole.as_millis() as u64);
        // No colours: it is there for a moment.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So much of the time is over, and so many messages came in it.
    pub(super) fn show(&self, elapsed: Duration, received: u64) {
        self.0.set_position(elapsed.as_millis() as u64);
        let (seconds, whole) = (elapsed.as_secs_f64(), self.0.length().unwrap_or(0));
        let rate = received as f64 / seconds;
        let whole = whole as f64 / 1000.0;
        let text = format!("{rate:.0} messages/s, {seconds:.1} of {whole:.1} s");
        self.0.set_message(text);
        // Back to the first column: at the last, the ^C that the terminal shows would wrap, and the line above
        // it stay.
        if !self.0.is_hidden() {
            let _ = io::stderr().write_all(b"\r");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
