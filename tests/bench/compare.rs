//! Two servers side by side: slices of load in turn, and what their ratios say.
//!
//! A pair is two fresh servers, both loaded in turn, in slices of 100 ms and changing order: what
//! else the machine does meets both alike. Each ratio is that of two neighbouring slices; the
//! median of all slices of all pairs counts.

use crate::load::{Load, Window};
use crate::server::Server;
use crate::setup::{Options, Outcome};
use std::time::Duration;

const SLICE: Duration = Duration::from_millis(100);

/// Slices of both servers, one beside the other in time.
pub(crate) type Slices = Vec<(Window, Window)>;

/// As many pairs as are asked for.
pub(crate) fn pairs(
    options: &Options,
    floor: impl Fn() -> Outcome<Side>,
    daemon: impl Fn() -> Outcome<Side>,
) -> Outcome<Slices> {
    let mut slices = Slices::new();
    for number in 0..options.pairs {
        slices.extend(pair(options.span, number, floor()?, daemon()?)?);
    }
    Ok(slices)
}

/// Two fresh servers under load in turn.
fn pair(span: Duration, number: usize, mut floor: Side, mut daemon: Side) -> Outcome<Slices> {
    let count = span.div_duration_f64(SLICE).round().max(1.0) as usize;
    let span = span / count as u32;
    let mut slices = Vec::with_capacity(count);
    for slice in 0..count {
        // floor, daemon, daemon, floor …; the next pair the other way round.
        slices.push(if (slice + number).is_multiple_of(2) {
            let of_floor = floor.slice(span)?;
            (of_floor, daemon.slice(span)?)
        } else {
            let of_daemon = daemon.slice(span)?;
            (floor.slice(span)?, of_daemon)
        });
    }
    floor.stop()?;
    daemon.stop()?;
    Ok(slices)
}

/// One server under load.
pub(crate) struct Side {
    server: Server,
    load: Box<dyn Load>,
}

impl Side {
    /// `load` is already connected to `server`; both are warm afterwards.
    pub(crate) fn new(server: Server, load: impl Load + 'static) -> Outcome<Side> {
        let load = Box::new(load);
        let mut side = Side { server, load };
        side.slice(SLICE / 2)?;
        Ok(side)
    }

    fn slice(&mut self, span: Duration) -> Outcome<Window> {
        let before = self.server.cpu()?;
        let mut window = self
            .load
            .run(span)
            .map_err(|error| self.server.blame(&format!("is at fault: {error}")))?;
        window.cpu = self.server.cpu()? - before;
        Ok(window)
    }

    fn stop(self) -> Outcome<()> {
        drop(self.load);
        self.server.stop()
    }
}

/// One figure of all slices: medians of both servers, and of the ratios.
pub(crate) struct Compared {
    pub(crate) floor: f64,
    pub(crate) daemon: f64,
    pub(crate) ratio: f64,
    /// Half of the ratios lie between these.
    quartiles: (f64, f64),
}

impl Compared {
    pub(crate) fn new(slices: &Slices, figure: impl Fn(&Window) -> f64) -> Compared {
        let ratios = sorted(slices.iter().map(|(f, d)| figure(d) / figure(f)));
        Compared {
            floor: median(&sorted(slices.iter().map(|(floor, _)| figure(floor)))),
            daemon: median(&sorted(slices.iter().map(|(_, daemon)| figure(daemon)))),
            ratio: median(&ratios),
            quartiles: (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]),
        }
    }

    /// In units of `unit`.
    pub(crate) fn cells(&self, unit: f64) -> String {
        format!(
            "{:>6.0} {:>6.0}  {:.3} ({:.2}–{:.2})",
            self.floor / unit,
            self.daemon / unit,
            self.ratio,
            self.quartiles.0,
            self.quartiles.1
        )
    }
}

pub(crate) fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Of figures in order.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}
